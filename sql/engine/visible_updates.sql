-- A page of the log as one person may see it. No row: never a member. The first row carries the head, seq only.
CREATE FUNCTION engine.visible_updates(p_actor uuid, p_thread uuid, p_since bigint, p_limit integer) RETURNS SETOF engine.log_rows
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET enable_material = off SET enable_bitmapscan = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_head engine.log_rows;
    v_high bigint;
BEGIN
    SELECT max(r.high_seq) INTO v_high FROM engine.visible_ranges(p_thread, p_actor) r;
    IF v_high IS NULL THEN
        RETURN;
    END IF;
    SELECT least(t.seq, v_high) INTO v_head.seq FROM threads t WHERE t.id = p_thread;
    RETURN NEXT v_head;
    RETURN QUERY
    SELECT l.* FROM engine.visible_ranges(p_thread, p_actor) r
    CROSS JOIN LATERAL (
        SELECT l.* FROM engine.log_rows l
        WHERE l.thread_id = p_thread AND l.seq > p_since AND l.seq >= r.low_seq AND l.seq <= r.high_seq
        ORDER BY l.seq LIMIT p_limit) l
    ORDER BY l.seq LIMIT p_limit;
END $$;
GRANT EXECUTE ON FUNCTION engine.visible_updates TO haus_app;
