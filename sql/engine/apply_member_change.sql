-- Writes role and nickname of a member whose thread is locked; nickname '' clears it, NULL leaves it.
CREATE FUNCTION engine.apply_member_change(p_thread uuid, p_actor uuid, p_profile uuid, p_role thread_role, p_nickname text)
RETURNS SETOF engine.change_row
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_row thread_members%ROWTYPE;
    v_data jsonb;
BEGIN
    UPDATE thread_members m SET role = coalesce(p_role, m.role),
           nickname = CASE WHEN p_nickname IS NULL THEN m.nickname ELSE nullif(p_nickname, '') END
    WHERE m.thread_id = p_thread AND m.profile_id = p_profile AND m.left_at IS NULL RETURNING m.* INTO v_row;
    IF NOT FOUND THEN
        RETURN NEXT engine.refused('not_found');
        RETURN;
    END IF;
    v_data := jsonb_build_object('profileId', p_profile, 'role', v_row.role, 'nickname', v_row.nickname, 'byId', p_actor);
    RETURN NEXT engine.append_update(p_thread, p_actor, 10::smallint, v_data);
END $$;
