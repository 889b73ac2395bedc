-- Moves the own read mark forward, never back; a revision below the stored one changes nothing.
CREATE FUNCTION engine.mark_read(p_thread uuid, p_profile uuid, p_no bigint, p_rev integer)
RETURNS TABLE (code text, last_read_no bigint, read_rev integer, thread_no bigint, mentions bigint, muted_until timestamptz, user_seq bigint, at timestamptz)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_no bigint;
    v_row thread_members%ROWTYPE;
    v_may boolean;
    v_mentions bigint;
    v_moved boolean;
    v_seq bigint;
    v_at timestamptz;
BEGIN
    SELECT t.no INTO v_no FROM threads t WHERE t.id = p_thread;
    SELECT m.* INTO v_row FROM thread_members m
    WHERE m.thread_id = p_thread AND m.profile_id = p_profile AND m.left_at IS NULL FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN QUERY SELECT 'not_found', 0::bigint, 0, 0::bigint, 0::bigint, NULL::timestamptz, NULL::bigint, NULL::timestamptz;
        RETURN;
    END IF;
    SELECT engine.may_act(p.status, p.role, p.suspended_until) INTO v_may FROM profiles p WHERE p.id = p_profile;
    IF NOT v_may THEN
        RETURN QUERY SELECT 'forbidden', 0::bigint, 0, 0::bigint, 0::bigint, NULL::timestamptz, NULL::bigint, NULL::timestamptz;
        RETURN;
    END IF;
    v_moved := least(p_no, v_no) > v_row.mark_no AND coalesce(p_rev, v_row.mark_rev) >= v_row.mark_rev;
    IF v_moved THEN
        UPDATE thread_members m SET mark_no = least(p_no, v_no), receipt_no = greatest(m.receipt_no, least(p_no, v_no)),
               last_read_at = clock_timestamp(),
               last_read_message_id = (SELECT g.id FROM messages g WHERE g.thread_id = p_thread AND g.no = least(p_no, v_no))
        WHERE m.id = v_row.id RETURNING m.* INTO v_row;
    END IF;
    SELECT count(*) INTO v_mentions FROM message_mentions w
    WHERE w.thread_id = p_thread AND w.profile_id = p_profile AND w.no > v_row.mark_no AND w.no <= v_no;
    IF v_moved THEN
        SELECT a.seq, a.at INTO v_seq, v_at
        FROM engine.append_user_updates(ARRAY[p_profile], 34::smallint, jsonb_build_object('threadId', p_thread)) a;
    END IF;
    RETURN QUERY SELECT 'ok', v_row.mark_no, v_row.mark_rev, v_no, v_mentions, v_row.muted_until, v_seq, v_at;
END $$;
GRANT EXECUTE ON FUNCTION engine.mark_read TO haus_app;
