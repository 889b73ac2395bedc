-- After a restore from a dump: rows whose transaction number lies at or above this cluster's counter would be taken for
-- new ones when the counter gets there. They are given the number of what is frozen, which every snapshot has seen; all
-- revocations at once, and at most p_rows of each log. Returns how many rows were changed; 0: done. Each statement asks its
-- own snapshot, so nothing written here is ever above the number compared with.
CREATE FUNCTION engine.renumber(p_rows integer) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off SET enable_sort = off SET jit = off AS $$
DECLARE
    v_changed bigint;
    v_total bigint := 0;
BEGIN
    UPDATE revocations r SET xid = '2' WHERE r.xid >= pg_snapshot_xmax(pg_current_snapshot());
    GET DIAGNOSTICS v_total = ROW_COUNT;
    UPDATE thread_updates u SET xid = '2' FROM (
        SELECT o.thread_id, o.seq FROM thread_updates o WHERE o.xid >= pg_snapshot_xmax(pg_current_snapshot())
        ORDER BY o.xid LIMIT p_rows FOR UPDATE SKIP LOCKED) w
    WHERE u.thread_id = w.thread_id AND u.seq = w.seq;
    GET DIAGNOSTICS v_changed = ROW_COUNT;
    v_total := v_total + v_changed;
    UPDATE user_updates u SET xid = '2' FROM (
        SELECT o.profile_id, o.seq FROM user_updates o WHERE o.xid >= pg_snapshot_xmax(pg_current_snapshot())
        ORDER BY o.xid LIMIT p_rows FOR UPDATE SKIP LOCKED) w
    WHERE u.profile_id = w.profile_id AND u.seq = w.seq;
    GET DIAGNOSTICS v_changed = ROW_COUNT;
    RETURN v_total + v_changed;
END $$;
GRANT SELECT, UPDATE ON revocations TO haus_engine;
GRANT EXECUTE ON FUNCTION engine.renumber TO haus_app;
