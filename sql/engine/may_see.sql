-- Whether a profile may see position p_seq of a thread: one of its stays covers it, or the thread shows its past to
-- newcomers and a stay is still open.
CREATE FUNCTION engine.may_see(p_thread uuid, p_profile uuid, p_seq bigint) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT EXISTS (
        SELECT FROM thread_spans s JOIN threads t ON t.id = s.thread_id
        WHERE s.thread_id = p_thread AND s.profile_id = p_profile
          AND (s.join_seq <= p_seq OR t.history_for_newcomers)
          AND (s.leave_seq IS NULL OR p_seq <= s.leave_seq))
$$;
GRANT EXECUTE ON FUNCTION engine.may_see TO haus_app;
