-- Whether p_actor may put p_profiles into a thread of this type: NULL, or why not and who is the first of them. Locks their
-- user streams in order, so that of two calls at once the second counts what the first committed. p_most: threads a person
-- may be in. A HOUSE thread asks nobody, nor does an ANNOUNCE of an ADMIN or of the person's own house.
CREATE FUNCTION engine.judge_newcomers(p_type thread_type, p_house uuid, p_actor uuid, p_profiles uuid[], p_most integer)
RETURNS engine.change_row
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_who uuid;
    v_code text;
BEGIN
    SELECT w.id INTO v_who FROM unnest(p_profiles) w (id) WHERE NOT EXISTS (SELECT FROM profiles p WHERE p.id = w.id) LIMIT 1;
    IF FOUND THEN
        RETURN engine.refused_for('invalid', v_who);
    END IF;
    IF p_type IN ('DIRECT', 'GROUP')
       OR p_type = 'ANNOUNCE' AND NOT EXISTS (SELECT FROM profiles p WHERE p.id = p_actor AND p.role = 'ADMIN') THEN
        SELECT w.id INTO v_who FROM unnest(p_profiles) w (id)
        WHERE NOT engine.consents(p_actor, w.id)
          AND NOT (p_type = 'ANNOUNCE'
                   AND EXISTS (SELECT FROM house_members h WHERE h.house_id = p_house AND h.profile_id = w.id)) LIMIT 1;
        IF FOUND THEN
            RETURN engine.refused_for('blocked', v_who);
        END IF;
    END IF;
    -- After consent, and by name only to whom the status is shown: to others it is one who does not take messages.
    SELECT p.id, CASE WHEN engine.is_open(p_actor, r.role, engine.standing(r.status, r.role, r.suspended_until), p.id, s.privacy,
                      engine.are_apart(p_actor, a.blocked_users, p.id, s.blocked_users)) THEN 'invalid' ELSE 'blocked' END
    INTO v_who, v_code
    FROM unnest(p_profiles) w (id)
    JOIN profiles p ON p.id = w.id AND NOT engine.may_act(p.status, p.role, p.suspended_until)
    LEFT JOIN user_settings s ON s.user_id = p.id
    LEFT JOIN profiles r ON r.id = p_actor
    LEFT JOIN user_settings a ON a.user_id = p_actor LIMIT 1;
    IF FOUND THEN
        RETURN engine.refused_for(v_code, v_who);
    END IF;
    INSERT INTO user_streams AS s (profile_id, seq) SELECT w.id, 0 FROM (SELECT DISTINCT unnest(p_profiles) AS id ORDER BY 1) w
    ON CONFLICT (profile_id) DO UPDATE SET seq = s.seq;
    SELECT w.id INTO v_who FROM unnest(p_profiles) w (id)
    WHERE (SELECT count(*) FROM (SELECT FROM thread_members m WHERE m.profile_id = w.id AND m.left_at IS NULL LIMIT p_most) m) >= p_most
    LIMIT 1;
    IF FOUND THEN
        RETURN engine.refused_for('many_threads', v_who);
    END IF;
    RETURN NULL;
END $$;
