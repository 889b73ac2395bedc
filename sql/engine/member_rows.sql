-- Threads of pairs of profile and thread, memberships that ended included; no row for a pair that never was one. Of a stay
-- that has ended nothing is told from after it.
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
    CROSS JOIN LATERAL (
        SELECT x.* FROM engine.member_threads x WHERE x.profile_id = w.id AND x.thread_id = w.thread AND NOT x.has_left
        UNION ALL
        SELECT x.thread_id, x.type, s.leave_name, NULL, NULL, x.house_id, x.is_archived, x.is_muted, 0, s.leave_seq,
               s.leave_no, x.created_at, NULL, x.role, least(x.mark_no, s.leave_no), x.mark_rev, x.muted_until, x.join_seq,
               (SELECT count(*) FROM message_mentions n WHERE n.thread_id = w.thread AND n.profile_id = w.id
                AND n.no > x.mark_no AND n.no <= s.leave_no),
               x.peer_id, x.peer_name, x.peer_avatar, true, x.created_at, x.profile_id
        FROM engine.member_threads x
        JOIN thread_spans s ON s.thread_id = w.thread AND s.profile_id = w.id AND s.join_seq = x.join_seq
        WHERE x.profile_id = w.id AND x.thread_id = w.thread AND x.has_left) t;
END $$;
GRANT EXECUTE ON FUNCTION engine.member_rows TO haus_app;
