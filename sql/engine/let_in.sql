-- Lets profiles in, at most 500 an update: log rows, spans, member rows, thread.added. The thread's row is locked.
CREATE FUNCTION engine.let_in(p_thread uuid, p_actor uuid, p_profiles uuid[], p_admin uuid) RETURNS SETOF engine.change_row
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_chunk uuid[];
    v_no bigint;
    v_joined engine.change_row;
    v_data jsonb;
BEGIN
    SELECT t.no INTO v_no FROM threads t WHERE t.id = p_thread;
    FOR i IN 0..(cardinality(p_profiles) - 1) / 500 LOOP
        v_chunk := p_profiles[i * 500 + 1:(i + 1) * 500];
        v_data := jsonb_build_object('profileIds', to_jsonb(v_chunk), 'byId', p_actor);
        v_joined := engine.append_update(p_thread, p_actor, 8::smallint, v_data);
        INSERT INTO thread_spans (thread_id, profile_id, join_seq, join_no)
        SELECT p_thread, w.id, v_joined.seq, v_no + 1 FROM unnest(v_chunk) w (id);
        INSERT INTO thread_members AS m (thread_id, profile_id, role, join_seq, join_no, mark_no, receipt_no)
        SELECT p_thread, w.id, CASE WHEN w.id = p_admin THEN 'ADMIN' ELSE 'MEMBER' END::thread_role, v_joined.seq, v_no + 1, v_no, v_no
        FROM unnest(v_chunk) w (id)
        ON CONFLICT (thread_id, profile_id) DO UPDATE SET role = excluded.role, left_at = NULL, joined_at = clock_timestamp(),
            join_seq = excluded.join_seq, join_no = excluded.join_no, mark_no = excluded.mark_no,
            receipt_no = greatest(m.receipt_no, excluded.receipt_no), mark_rev = m.mark_rev + 1;
        UPDATE threads t SET member_count = t.member_count + cardinality(v_chunk) WHERE t.id = p_thread;
        RETURN NEXT v_joined;
        v_data := jsonb_build_object('threadId', p_thread, 'seq', v_joined.seq);
        RETURN QUERY SELECT 'ok', 'U', a.profile_id, a.seq, a.at, 32::smallint, v_data
                     FROM engine.append_user_updates(v_chunk, 32::smallint, v_data) a;
    END LOOP;
END $$;
