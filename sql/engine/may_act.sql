-- Whether a profile may write at all (ACTIVE and PENDING do). Inlined like engine.standing.
CREATE FUNCTION engine.may_act(p_status user_status, p_role user_role, p_until timestamptz) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT engine.standing(p_status, p_role, p_until) IN ('ACTIVE', 'PENDING')
$$;
