-- Pages of user streams after given positions, the number of the ask with each row.
CREATE FUNCTION engine.user_pages(p_profiles uuid[], p_since bigint[], p_limit integer)
RETURNS TABLE (profile_id uuid, seq bigint, kind smallint, at timestamptz, data jsonb, ord integer)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN QUERY
    SELECT w.id, u.seq, u.kind, u.at, u.data, w.ord::integer
    FROM unnest(p_profiles, p_since) WITH ORDINALITY AS w (id, since, ord)
    CROSS JOIN LATERAL (
        SELECT u.* FROM user_updates u WHERE u.profile_id = w.id AND u.seq > w.since ORDER BY u.seq LIMIT p_limit) u
    ORDER BY w.ord, u.seq;
END $$;
GRANT EXECUTE ON FUNCTION engine.user_pages TO haus_app;
