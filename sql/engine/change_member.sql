-- Changes role (ADMINs, not the own one) or nickname (oneself or ADMINs) of a member.
CREATE FUNCTION engine.change_member(p_thread uuid, p_actor uuid, p_profile uuid, p_role text, p_nickname text)
RETURNS SETOF engine.change_row
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_code text := engine.lock_for(p_thread, p_actor,
        CASE WHEN p_role IS NULL AND p_actor = p_profile THEN 'MEMBER' ELSE 'ADMIN' END::thread_role);
BEGIN
    IF v_code IS NULL AND p_role IS NOT NULL AND (p_actor = p_profile
        OR EXISTS (SELECT FROM threads t WHERE t.id = p_thread AND t.type = 'DIRECT')) THEN
        v_code := 'forbidden';
    END IF;
    IF v_code IS NULL AND EXISTS (
        SELECT FROM thread_members m WHERE m.thread_id = p_thread AND m.profile_id = p_profile AND m.left_at IS NULL
           AND m.role = coalesce(p_role::thread_role, m.role)
           AND (p_nickname IS NULL OR coalesce(m.nickname, '') = p_nickname)) THEN
        v_code := 'noop';
    END IF;
    IF v_code IS NOT NULL THEN
        RETURN NEXT engine.refused(v_code);
    ELSE
        RETURN QUERY SELECT * FROM engine.apply_member_change(p_thread, p_actor, p_profile, p_role::thread_role, p_nickname);
    END IF;
END $$;
GRANT EXECUTE ON FUNCTION engine.change_member TO haus_app;
