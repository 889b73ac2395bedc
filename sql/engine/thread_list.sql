-- A page of one profile's threads, newest first, below the place (p_at, p_id); NULLs begin.
CREATE FUNCTION engine.thread_list(p_profile uuid, p_at timestamptz, p_id uuid, p_limit integer) RETURNS SETOF engine.person_thread
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET enable_material = off SET max_parallel_workers_per_gather = 0 SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN QUERY
    SELECT p.id, p.display_name, p.role::text, engine.standing(p.status, p.role, p.suspended_until)::text,
           coalesce((SELECT s.seq FROM user_streams s WHERE s.profile_id = p.id), 0), x.*
    FROM profiles p
    JOIN engine.member_threads x ON x.profile_id = p.id AND NOT x.has_left
    WHERE p.id = p_profile AND (p_at IS NULL OR x.moved_at < p_at OR x.moved_at = p_at AND x.thread_id > p_id)
    ORDER BY x.moved_at DESC, x.thread_id LIMIT p_limit;
END $$;
GRANT EXECUTE ON FUNCTION engine.thread_list TO haus_app;
