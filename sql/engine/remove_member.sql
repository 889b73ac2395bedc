-- Ends a stay: oneself (leave), or another (ADMINs). Where the last ADMIN who can act goes, the ACTIVE member of highest role
-- and longest standing becomes ADMIN first. A thread without ACTIVE members has none: nobody there may do what ADMINs do.
CREATE FUNCTION engine.remove_member(p_thread uuid, p_actor uuid, p_profile uuid) RETURNS SETOF engine.change_row
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_code text := engine.lock_for(p_thread, p_actor, CASE WHEN p_actor = p_profile THEN 'MEMBER' ELSE 'ADMIN' END::thread_role);
    v_thread threads%ROWTYPE;
    v_role thread_role;
    v_heir uuid;
    v_reason text := CASE WHEN p_actor = p_profile THEN 'left' ELSE 'removed' END;
    v_left engine.change_row;
    v_data jsonb;
BEGIN
    SELECT * INTO v_thread FROM threads WHERE id = p_thread;
    IF v_code IS NULL AND v_thread.type IN ('DIRECT', 'HOUSE') THEN
        v_code := 'forbidden';
    END IF;
    SELECT m.role INTO v_role FROM thread_members m
    WHERE m.thread_id = p_thread AND m.profile_id = p_profile AND m.left_at IS NULL;
    IF v_code IS NULL AND NOT FOUND THEN
        v_code := 'not_found';
    END IF;
    IF v_code IS NOT NULL THEN
        RETURN NEXT engine.refused(v_code);
        RETURN;
    END IF;
    IF v_role = 'ADMIN' AND NOT EXISTS (
        SELECT FROM thread_members m JOIN profiles p ON p.id = m.profile_id
        WHERE m.thread_id = p_thread AND m.left_at IS NULL AND m.role = 'ADMIN' AND m.profile_id <> p_profile
          AND engine.standing(p.status, p.role, p.suspended_until) = 'ACTIVE') THEN
        SELECT m.profile_id INTO v_heir FROM thread_members m JOIN profiles p ON p.id = m.profile_id
        WHERE m.thread_id = p_thread AND m.left_at IS NULL AND m.profile_id <> p_profile
          AND engine.standing(p.status, p.role, p.suspended_until) = 'ACTIVE'
        ORDER BY m.role DESC, m.joined_at, m.profile_id LIMIT 1;
        IF FOUND THEN
            RETURN QUERY SELECT * FROM engine.apply_member_change(p_thread, p_actor, v_heir, 'ADMIN'::thread_role, NULL);
        END IF;
    END IF;
    v_data := jsonb_build_object('profileIds', jsonb_build_array(p_profile), 'byId', p_actor, 'reason', v_reason);
    v_left := engine.append_update(p_thread, p_actor, 9::smallint, v_data);
    UPDATE thread_spans SET leave_seq = v_left.seq, leave_no = v_thread.no, leave_name = v_thread.name
    WHERE thread_id = p_thread AND profile_id = p_profile AND leave_seq IS NULL;
    UPDATE thread_members SET left_at = clock_timestamp(), role = 'MEMBER' WHERE thread_id = p_thread AND profile_id = p_profile;
    UPDATE threads SET member_count = member_count - 1 WHERE id = p_thread;
    RETURN NEXT v_left;
    v_data := jsonb_build_object('threadId', p_thread, 'seq', v_left.seq, 'reason', v_reason);
    RETURN QUERY SELECT 'ok', 'U', a.profile_id, a.seq, a.at, 33::smallint, v_data
                 FROM engine.append_user_updates(ARRAY[p_profile], 33::smallint, v_data) a;
END $$;
GRANT EXECUTE ON FUNCTION engine.remove_member TO haus_app;
