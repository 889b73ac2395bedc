-- Stays as ranges of seq and no, both ends inclusive; a thread that shows its past gives one range from 1.
CREATE FUNCTION engine.visible_ranges(p_thread uuid, p_profile uuid)
RETURNS TABLE (low_seq bigint, high_seq bigint, low_no bigint, high_no bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    IF (SELECT t.history_for_newcomers FROM threads t WHERE t.id = p_thread) THEN
        RETURN QUERY
        SELECT 1::bigint, max(coalesce(s.leave_seq, 9223372036854775807)), 1::bigint, max(coalesce(s.leave_no, 9223372036854775807))
        FROM thread_spans s WHERE s.thread_id = p_thread AND s.profile_id = p_profile HAVING count(*) > 0;
    ELSE
        RETURN QUERY
        SELECT s.join_seq, coalesce(s.leave_seq, 9223372036854775807), s.join_no, coalesce(s.leave_no, 9223372036854775807)
        FROM thread_spans s WHERE s.thread_id = p_thread AND s.profile_id = p_profile ORDER BY 1;
    END IF;
END $$;
