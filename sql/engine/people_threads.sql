-- Profiles with all their threads: one snapshot, one call for many (the connect path). Arrays, as a row for each thread
-- would cost both sides more than reading it. The first p_listed threads come whole, of the others the positions, which
-- are looked for only where the list is full.
CREATE FUNCTION engine.people_threads(p_profiles uuid[], p_listed integer) RETURNS SETOF engine.person_threads
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET enable_material = off SET max_parallel_workers_per_gather = 0 SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN QUERY
    SELECT p.id, p.display_name, p.role::text, engine.standing(p.status, p.role, p.suspended_until)::text,
           coalesce((SELECT s.seq FROM user_streams s WHERE s.profile_id = p.id), 0), a.*, f.*
    FROM unnest(p_profiles) AS w (id)
    JOIN profiles p ON p.id = w.id
    CROSS JOIN LATERAL (
        SELECT array_agg(x.thread_id) AS ids, array_agg(x.type), array_agg(x.name), array_agg(x.description), array_agg(x.avatar),
               array_agg(x.house_id), array_agg(x.is_archived), array_agg(x.is_muted), array_agg(x.member_count),
               array_agg(x.seq), array_agg(x.no), array_agg(x.created_at), array_agg(x.last_message_at), array_agg(x.role),
               array_agg(x.mark_no), array_agg(x.mark_rev), array_agg(x.muted_until), array_agg(x.join_seq),
               array_agg(x.mentions), array_agg(x.peer_id), array_agg(x.peer_name), array_agg(x.peer_avatar)
        FROM (SELECT x.* FROM engine.member_threads x WHERE x.profile_id = w.id AND NOT x.has_left
              ORDER BY x.moved_at DESC, x.thread_id LIMIT p_listed) x) a
    CROSS JOIN LATERAL (
        SELECT array_agg(y.thread_id), array_agg(y.seq), array_agg(y.join_seq)
        FROM (SELECT m.thread_id, t.seq, m.join_seq FROM thread_members m JOIN threads t ON t.id = m.thread_id
              WHERE m.profile_id = w.id AND m.left_at IS NULL AND cardinality(a.ids) >= p_listed
              ORDER BY coalesce(t.last_message_at, t.created_at) DESC, m.thread_id OFFSET p_listed) y) f;
END $$;
GRANT EXECUTE ON FUNCTION engine.people_threads TO haus_app;
