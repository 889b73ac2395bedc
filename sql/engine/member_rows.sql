-- Threads of pairs of profile and thread, memberships that ended included; no row for a pair that never was one.
CREATE FUNCTION engine.member_rows(p_profiles uuid[], p_threads uuid[]) RETURNS SETOF engine.person_thread
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET enable_material = off SET max_parallel_workers_per_gather = 0 SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN QUERY
    SELECT w.id, p.display_name, p.role::text, engine.standing(p.status, p.role, p.suspended_until)::text,
           coalesce((SELECT s.seq FROM user_streams s WHERE s.profile_id = w.id), 0), t.*
    FROM unnest(p_profiles, p_threads) AS w (id, thread)
    JOIN profiles p ON p.id = w.id
    CROSS JOIN LATERAL (SELECT x.* FROM engine.member_threads x WHERE x.profile_id = w.id AND x.thread_id = w.thread) t;
END $$;
GRANT EXECUTE ON FUNCTION engine.member_rows TO haus_app;
