-- Appends one row to a thread whose row the caller has locked; returns it as a change.
CREATE FUNCTION engine.append_update(p_thread uuid, p_actor uuid, p_kind smallint, p_data jsonb) RETURNS engine.change_row
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_row engine.change_row := ROW('ok', 'T', NULL, NULL, clock_timestamp(), p_kind, p_data);
BEGIN
    UPDATE threads SET seq = seq + 1 WHERE id = p_thread RETURNING seq INTO v_row.seq;
    INSERT INTO thread_updates (thread_id, seq, kind, actor_id, at, data)
    VALUES (p_thread, v_row.seq, p_kind, p_actor, v_row.at, p_data);
    RETURN v_row;
END $$;
