-- Changes name, description, avatar, isArchived, isMuted, slowModeS, historyForNewcomers: the keys present in p_patch.
CREATE FUNCTION engine.change_thread(p_thread uuid, p_actor uuid, p_patch jsonb) RETURNS SETOF engine.change_row
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_code text := engine.lock_for(p_thread, p_actor, 'ADMIN');
    v_old threads%ROWTYPE;
    v_new threads%ROWTYPE;
    v_changed jsonb;
    v_data jsonb;
BEGIN
    SELECT * INTO v_old FROM threads WHERE id = p_thread;
    IF v_code IS NULL AND v_old.type = 'DIRECT' THEN
        v_code := 'forbidden';
    END IF;
    IF v_code IS NOT NULL THEN
        RETURN NEXT engine.refused(v_code);
        RETURN;
    END IF;
    UPDATE threads t SET
        name = CASE WHEN p_patch ? 'name' THEN p_patch ->> 'name' ELSE t.name END,
        description = CASE WHEN p_patch ? 'description' THEN p_patch ->> 'description' ELSE t.description END,
        avatar = CASE WHEN p_patch ? 'avatar' THEN p_patch ->> 'avatar' ELSE t.avatar END,
        is_archived = CASE WHEN p_patch ? 'isArchived' THEN (p_patch ->> 'isArchived')::boolean ELSE t.is_archived END,
        is_muted = CASE WHEN p_patch ? 'isMuted' THEN (p_patch ->> 'isMuted')::boolean ELSE t.is_muted END,
        slow_mode_s = CASE WHEN p_patch ? 'slowModeS' THEN (p_patch ->> 'slowModeS')::integer ELSE t.slow_mode_s END,
        history_for_newcomers = CASE WHEN p_patch ? 'historyForNewcomers' THEN (p_patch ->> 'historyForNewcomers')::boolean
                                     ELSE t.history_for_newcomers END
    WHERE t.id = p_thread RETURNING t.* INTO v_new;
    SELECT coalesce(jsonb_object_agg(n.key, n.value), '{}'::jsonb) INTO v_changed
    FROM jsonb_each(jsonb_build_object('name', v_new.name, 'description', v_new.description, 'avatar', v_new.avatar,
            'isArchived', v_new.is_archived, 'isMuted', v_new.is_muted, 'slowModeS', v_new.slow_mode_s,
            'historyForNewcomers', v_new.history_for_newcomers)) n
    JOIN jsonb_each(jsonb_build_object('name', v_old.name, 'description', v_old.description, 'avatar', v_old.avatar,
            'isArchived', v_old.is_archived, 'isMuted', v_old.is_muted, 'slowModeS', v_old.slow_mode_s,
            'historyForNewcomers', v_old.history_for_newcomers)) o ON o.key = n.key AND o.value IS DISTINCT FROM n.value;
    IF v_changed = '{}'::jsonb THEN
        RETURN NEXT engine.refused('noop');
        RETURN;
    END IF;
    v_data := jsonb_build_object('thread', v_changed, 'byId', p_actor);
    RETURN NEXT engine.append_update(p_thread, p_actor, 11::smallint, v_data);
END $$;
GRANT EXECUTE ON FUNCTION engine.change_thread TO haus_app;
