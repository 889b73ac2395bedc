-- Next seq of user streams, one each, locked in the order of profiles; appends the same kind with data for each.
CREATE FUNCTION engine.append_user_updates(p_profiles uuid[], p_kind smallint, p_data jsonb)
RETURNS TABLE (profile_id uuid, seq bigint, at timestamptz)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH bumped AS (
        INSERT INTO user_streams AS s (profile_id, seq)
        SELECT w.id, 1 FROM (SELECT DISTINCT unnest(p_profiles) AS id ORDER BY 1) w
        ON CONFLICT (profile_id) DO UPDATE SET seq = s.seq + 1
        RETURNING s.profile_id, s.seq
    ), logged AS (
        INSERT INTO user_updates (profile_id, seq, kind, at, data)
        SELECT b.profile_id, b.seq, p_kind, clock_timestamp(), p_data FROM bumped b
        RETURNING profile_id, seq, at
    )
    SELECT l.profile_id, l.seq, l.at FROM logged l
$$;
