-- Streams with rows that became visible since a position, and the position to go on from (first row, stream NULL). Exact:
-- a row counts once, however late its transaction committed. Read are only
--   the rows of the transactions that were under way in the earlier snapshot (named one by one: a transaction that stays
--   open for hours costs one look-up a poll, not everything written since), and
--   the rows between the end of the earlier snapshot and that of the present one. Above it lies nothing of ours: numbers
--   there are another cluster's, in a database that was restored from a dump.
-- At most about p_rows rows of the second kind are read; then p_position is "earlier/present/xid reached" instead of a
-- snapshot alone, and the next call goes on there.
-- state: 'whole', 'more' (call again at once), 'lost' (the present snapshot is older than the earlier one: another cluster).
CREATE FUNCTION engine.poll(p_position text, p_rows integer)
RETURNS TABLE (pos text, state text, stream uuid, is_user boolean, seq bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_sort = off SET max_parallel_workers_per_gather = 0 SET jit = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    v_now pg_snapshot := pg_current_snapshot();
    v_earlier pg_snapshot := nullif(split_part(p_position, '/', 1), '')::pg_snapshot;
    v_present pg_snapshot := coalesce(nullif(split_part(p_position, '/', 2), '')::pg_snapshot, v_now);
    v_reached xid8 := coalesce(nullif(split_part(p_position, '/', 3), '')::xid8, '0');
    v_from xid8 := pg_snapshot_xmax(v_earlier);
    v_to xid8 := pg_snapshot_xmax(v_present);
    v_late xid8[] := '{}';
    v_cut xid8;
BEGIN
    IF v_earlier IS NULL THEN
        RETURN QUERY SELECT v_now::text, 'whole', NULL::uuid, NULL::boolean, NULL::bigint;
        RETURN;
    END IF;
    IF v_from > pg_snapshot_xmax(v_now) OR v_to > pg_snapshot_xmax(v_now) THEN
        RETURN QUERY SELECT v_now::text, 'lost', NULL::uuid, NULL::boolean, NULL::bigint;
        RETURN;
    END IF;
    IF v_reached = '0' THEN
        v_late := ARRAY(SELECT pg_snapshot_xip(v_earlier));
    ELSE
        v_from := greatest(v_from, v_reached);
    END IF;
    -- Rows of one transaction are never cut: the page ends before the transaction at its last place, or with the first one
    -- where that alone fills it.
    SELECT min(w.xid) INTO v_cut FROM (
        (SELECT u.xid FROM thread_updates u WHERE u.xid >= v_from AND u.xid < v_to ORDER BY u.xid OFFSET p_rows LIMIT 1)
        UNION ALL
        (SELECT u.xid FROM user_updates u WHERE u.xid >= v_from AND u.xid < v_to ORDER BY u.xid OFFSET p_rows LIMIT 1)) w;
    IF v_cut IS NOT NULL THEN
        IF NOT EXISTS (SELECT FROM thread_updates u WHERE u.xid >= v_from AND u.xid < v_cut)
           AND NOT EXISTS (SELECT FROM user_updates u WHERE u.xid >= v_from AND u.xid < v_cut) THEN
            v_cut := ((v_cut::text::numeric + 1)::text)::xid8;
        END IF;
        v_to := least(v_to, v_cut);
    END IF;
    IF v_to < pg_snapshot_xmax(v_present) THEN
        RETURN QUERY SELECT concat_ws('/', v_earlier, v_present, v_to), 'more', NULL::uuid, NULL::boolean, NULL::bigint;
    ELSE
        RETURN QUERY SELECT v_present::text, 'whole', NULL::uuid, NULL::boolean, NULL::bigint;
    END IF;
    RETURN QUERY
    SELECT NULL, NULL, w.id, w.of_user, max(w.seq) FROM (
        SELECT u.thread_id AS id, false AS of_user, u.seq FROM thread_updates u WHERE u.xid = ANY (v_late)
        UNION ALL
        SELECT u.thread_id, false, u.seq FROM thread_updates u WHERE u.xid >= v_from AND u.xid < v_to
        UNION ALL
        SELECT u.profile_id, true, u.seq FROM user_updates u WHERE u.xid = ANY (v_late)
        UNION ALL
        SELECT u.profile_id, true, u.seq FROM user_updates u WHERE u.xid >= v_from AND u.xid < v_to) w
    GROUP BY w.id, w.of_user;
END $$;
GRANT EXECUTE ON FUNCTION engine.poll TO haus_app;
