-- Pages of thread logs after given positions. For the node, which applies visibility itself (every asker is attached
-- within a stay it has checked). The planner settings of this and the readers below keep a plan good that a session
-- cached while the tables were empty, and make it once: planned anew, a page over the partitions takes four times as long.
CREATE FUNCTION engine.log_pages(p_threads uuid[], p_since bigint[], p_limit integer) RETURNS SETOF engine.log_rows
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET enable_material = off SET enable_bitmapscan = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN QUERY
    SELECT l.* FROM unnest(p_threads, p_since) WITH ORDINALITY AS w (id, since, ord)
    CROSS JOIN LATERAL (
        SELECT l.* FROM engine.log_rows l WHERE l.thread_id = w.id AND l.seq > w.since ORDER BY l.seq LIMIT p_limit) l
    ORDER BY w.ord, l.seq;
END $$;
GRANT EXECUTE ON FUNCTION engine.log_pages TO haus_app;
