-- The actor's standing in a thread whose row is locked here: NULL code when it may act with at least p_least. What needs
-- more than MEMBER is for ACTIVE people: who waits for approval writes and leaves, and neither adds, removes nor changes.
CREATE FUNCTION engine.lock_for(p_thread uuid, p_actor uuid, p_least thread_role) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_thread threads%ROWTYPE;
    v_role thread_role;
    v_status user_status;
BEGIN
    SELECT * INTO v_thread FROM threads WHERE id = p_thread FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN 'not_found';
    END IF;
    SELECT m.role, engine.standing(p.status, p.role, p.suspended_until) INTO v_role, v_status
    FROM thread_members m JOIN profiles p ON p.id = m.profile_id
    WHERE m.thread_id = p_thread AND m.profile_id = p_actor AND m.left_at IS NULL;
    IF NOT FOUND THEN
        RETURN 'not_found';
    ELSIF v_role < p_least OR v_status NOT IN ('ACTIVE', 'PENDING') OR (p_least > 'MEMBER' AND v_status <> 'ACTIVE') THEN
        RETURN 'forbidden';
    END IF;
    RETURN NULL;
END $$;
