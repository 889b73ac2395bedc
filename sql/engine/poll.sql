-- Streams with rows committed since p_previous was taken, and the snapshot for the next call (first row, stream NULL).
-- A row counts when the earlier snapshot had not seen it, however late its transaction committed.
CREATE FUNCTION engine.poll(p_previous text) RETURNS TABLE (snapshot text, stream uuid, is_user boolean, seq bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off
SET max_parallel_workers_per_gather = 0 SET jit = off AS $$
#variable_conflict use_column
DECLARE
    v_previous pg_snapshot := p_previous::pg_snapshot;
    v_xmin xid8 := pg_snapshot_xmin(v_previous);
BEGIN
    RETURN QUERY SELECT pg_current_snapshot()::text, NULL::uuid, NULL::boolean, NULL::bigint;
    IF v_previous IS NOT NULL THEN
        RETURN QUERY
        SELECT NULL, u.thread_id, false, max(u.seq) FROM thread_updates u
        WHERE u.xid >= v_xmin AND NOT pg_visible_in_snapshot(u.xid, v_previous) GROUP BY u.thread_id;
        RETURN QUERY
        SELECT NULL, u.profile_id, true, max(u.seq) FROM user_updates u
        WHERE u.xid >= v_xmin AND NOT pg_visible_in_snapshot(u.xid, v_previous) GROUP BY u.profile_id;
    END IF;
END $$;
GRANT EXECUTE ON FUNCTION engine.poll TO haus_app;
