-- The status of a profile now: a suspension whose time is over counts as lifted, even before the job has written so. It goes
-- back to what the person was: an APPLICANT still waits for approval. No SET clause, so that it is inlined where it is used.
CREATE FUNCTION engine.standing(p_status user_status, p_role user_role, p_until timestamptz) RETURNS user_status
LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN p_status = 'SUSPENDED' AND p_until <= now()
                THEN CASE WHEN p_role = 'APPLICANT' THEN 'PENDING'::user_status ELSE 'ACTIVE'::user_status END
           ELSE p_status END
$$;
GRANT EXECUTE ON FUNCTION engine.standing TO haus_app;
