-- Adds members to a GROUP or ANNOUNCE thread (thread ADMINs). Those already in are passed over.
CREATE FUNCTION engine.add_members(p_thread uuid, p_actor uuid, p_profiles uuid[], p_most integer) RETURNS SETOF engine.change_row
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_code text := engine.lock_for(p_thread, p_actor, 'ADMIN');
    v_new uuid[];
    v_thread threads%ROWTYPE;
BEGIN
    SELECT * INTO v_thread FROM threads WHERE id = p_thread;
    IF v_code IS NULL THEN
        v_code := CASE
            WHEN v_thread.type IN ('DIRECT', 'HOUSE') THEN 'forbidden'
            WHEN v_thread.is_archived THEN 'thread_archived'
            WHEN EXISTS (SELECT FROM unnest(p_profiles) w (id) WHERE NOT EXISTS (
                SELECT FROM profiles p WHERE p.id = w.id AND p.status IN ('ACTIVE', 'PENDING'))) THEN 'invalid'
        END;
    END IF;
    IF v_code IS NULL THEN
        SELECT array_agg(DISTINCT w.id) INTO v_new FROM unnest(p_profiles) w (id)
        WHERE NOT EXISTS (SELECT FROM thread_members m WHERE m.thread_id = p_thread AND m.profile_id = w.id AND m.left_at IS NULL);
        IF v_thread.member_count + coalesce(cardinality(v_new), 0) > p_most THEN
            v_code := 'too_large';
        END IF;
    END IF;
    IF v_code IS NOT NULL THEN
        RETURN NEXT engine.refused(v_code);
    ELSIF v_new IS NULL THEN
        RETURN NEXT engine.refused('noop');
    ELSE
        RETURN QUERY SELECT * FROM engine.let_in(p_thread, p_actor, v_new, NULL);
    END IF;
END $$;
GRANT EXECUTE ON FUNCTION engine.add_members TO haus_app;
