-- A page of the log as one person may see it: at most p_limit rows and about p_bytes bytes of frames, and one row at least.
-- No row: never a member. The first row carries the head, seq only.
CREATE FUNCTION engine.visible_updates(p_actor uuid, p_thread uuid, p_since bigint, p_limit integer, p_bytes bigint)
RETURNS SETOF engine.log_rows
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET enable_material = off SET enable_bitmapscan = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    v_head engine.log_rows;
    v_row engine.log_rows;
    v_high bigint;
    v_bytes bigint := 0;
BEGIN
    SELECT max(r.high_seq) INTO v_high FROM engine.visible_ranges(p_thread, p_actor) r;
    IF v_high IS NULL THEN
        RETURN;
    END IF;
    SELECT least(t.seq, v_high) INTO v_head.seq FROM threads t WHERE t.id = p_thread;
    RETURN NEXT v_head;
    -- Row by row: a cursor reads ahead of what fits by a few rows, not by the page.
    FOR v_row IN
        SELECT l.* FROM engine.visible_ranges(p_thread, p_actor) r
        CROSS JOIN LATERAL (
            SELECT l.* FROM engine.log_rows l
            WHERE l.thread_id = p_thread AND l.seq > p_since AND l.seq >= r.low_seq AND l.seq <= r.high_seq
            ORDER BY l.seq LIMIT p_limit) l
        ORDER BY r.low_seq, l.seq LIMIT p_limit
    LOOP
        EXIT WHEN v_bytes >= p_bytes;
        v_bytes := v_bytes + 300 + coalesce(octet_length(v_row.content), 0) + coalesce(octet_length(v_row.media_url), 0)
            + 40 * coalesce(cardinality(v_row.mentions), 0) + 2 * coalesce(pg_column_size(v_row.data), 0);
        RETURN NEXT v_row;
    END LOOP;
END $$;
GRANT EXECUTE ON FUNCTION engine.visible_updates TO haus_app;
