-- Whether one of two people has blocked the other, from whom each has blocked (NULL: nobody). Blocks cut both ways. Inlined
-- like engine.standing.
CREATE FUNCTION engine.are_apart(p_one uuid, p_blocked_by_one uuid[], p_other uuid, p_blocked_by_other uuid[]) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(p_other = ANY (p_blocked_by_one), false) OR coalesce(p_one = ANY (p_blocked_by_other), false)
$$;
GRANT EXECUTE ON FUNCTION engine.are_apart TO haus_app;
