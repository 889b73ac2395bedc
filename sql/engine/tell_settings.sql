-- Tells a person's own devices what became of settings: p_changed are the changed ones, as they are now; NULL tells nothing.
CREATE FUNCTION engine.tell_settings(p_profile uuid, p_changed jsonb) RETURNS TABLE (seq bigint, at timestamptz)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT a.seq, a.at FROM (SELECT ARRAY[p_profile] AS who WHERE p_changed IS NOT NULL) w,
        LATERAL engine.append_user_updates(w.who, 35::smallint, jsonb_build_object('changed', p_changed)) a
$$;
GRANT EXECUTE ON FUNCTION engine.tell_settings TO haus_app;
