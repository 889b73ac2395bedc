-- Adds members to a GROUP or ANNOUNCE thread (thread ADMINs). Those already in are passed over. p_most: members of a
-- thread; p_threads: threads of a person.
CREATE FUNCTION engine.add_members(p_thread uuid, p_actor uuid, p_profiles uuid[], p_most integer, p_threads integer)
RETURNS SETOF engine.change_row
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_code text := engine.lock_for(p_thread, p_actor, 'ADMIN');
    v_new uuid[];
    v_thread threads%ROWTYPE;
    v_judged engine.change_row;
BEGIN
    SELECT * INTO v_thread FROM threads WHERE id = p_thread;
    IF v_code IS NULL THEN
        v_code := CASE
            WHEN v_thread.type IN ('DIRECT', 'HOUSE') THEN 'forbidden'
            WHEN v_thread.is_archived THEN 'thread_archived'
        END;
    END IF;
    IF v_code IS NULL THEN
        SELECT array_agg(DISTINCT w.id) INTO v_new FROM unnest(p_profiles) w (id)
        WHERE NOT EXISTS (SELECT FROM thread_members m WHERE m.thread_id = p_thread AND m.profile_id = w.id AND m.left_at IS NULL);
        IF v_new IS NULL THEN
            v_code := 'noop';
        ELSIF v_thread.member_count + cardinality(v_new) > p_most THEN
            v_code := 'too_large';
        END IF;
    END IF;
    IF v_code IS NOT NULL THEN
        RETURN NEXT engine.refused(v_code);
        RETURN;
    END IF;
    v_judged := engine.judge_newcomers(v_thread.type, v_thread.house_id, p_actor, v_new, p_threads);
    IF v_judged.code IS NOT NULL THEN
        RETURN NEXT v_judged;
        RETURN;
    END IF;
    RETURN QUERY SELECT * FROM engine.let_in(p_thread, p_actor, v_new, NULL);
END $$;
GRANT EXECUTE ON FUNCTION engine.add_members TO haus_app;
