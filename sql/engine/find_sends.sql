-- Sends that were committed before: no lock, one index look-up each. No row: nothing is known of this nonce, and the actor is
-- a member. Arrays run parallel.
CREATE FUNCTION engine.find_sends(p_thread uuid[], p_actor uuid[], p_nonce uuid[], p_mac bytea[])
RETURNS TABLE (ord integer, code text, seq bigint, no bigint, message_id uuid, sent_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET enable_bitmapscan = off SET enable_material = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT x.ord::integer,
           CASE WHEN u.seq IS NULL THEN 'not_found' WHEN u.body_mac = x.mac THEN 'dup' ELSE 'nonce_conflict' END,
           u.seq, u.no, u.message_id, u.at
    FROM unnest(p_thread, p_actor, p_nonce, p_mac) WITH ORDINALITY AS x (thread, actor, nonce, mac, ord)
    LEFT JOIN LATERAL (SELECT u.* FROM thread_updates u
        WHERE u.thread_id = x.thread AND u.actor_id = x.actor AND u.nonce = x.nonce LIMIT 1) u ON true
    WHERE u.seq IS NOT NULL OR NOT EXISTS (
        SELECT FROM thread_members m WHERE m.thread_id = x.thread AND m.profile_id = x.actor AND m.left_at IS NULL);
END $$;
GRANT EXECUTE ON FUNCTION engine.find_sends TO haus_app;
