-- Where streams of one person stand, in one snapshot: head and start of the present stay of those of p_threads that it is a
-- member of; the user stream as the row without a thread.
CREATE FUNCTION engine.positions(p_profile uuid, p_threads uuid[]) RETURNS TABLE (thread_id uuid, seq bigint, join_seq bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN QUERY
    SELECT NULL::uuid, coalesce((SELECT s.seq FROM user_streams s WHERE s.profile_id = p_profile), 0), 1::bigint
    UNION ALL
    SELECT t.id, t.seq, m.join_seq
    FROM unnest(p_threads) AS w (id)
    JOIN thread_members m ON m.thread_id = w.id AND m.profile_id = p_profile AND m.left_at IS NULL
    JOIN threads t ON t.id = m.thread_id;
END $$;
GRANT EXECUTE ON FUNCTION engine.positions TO haus_app;
