-- Heads of streams: what is committed.
CREATE FUNCTION engine.heads(p_threads uuid[], p_profiles uuid[]) RETURNS TABLE (stream uuid, is_user boolean, seq bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp SET enable_seqscan = off AS $$
    SELECT t.id, false, t.seq FROM threads t WHERE t.id = ANY (p_threads)
    UNION ALL
    SELECT s.profile_id, true, s.seq FROM user_streams s WHERE s.profile_id = ANY (p_profiles)
$$;
GRANT EXECUTE ON FUNCTION engine.heads TO haus_app;
