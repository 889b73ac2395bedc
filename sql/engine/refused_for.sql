-- A refusal because of one person, who is named.
CREATE FUNCTION engine.refused_for(p_code text, p_profile uuid) RETURNS engine.change_row LANGUAGE sql IMMUTABLE AS $$
    SELECT ROW(p_code, NULL, p_profile, NULL, NULL, NULL, NULL)::engine.change_row
$$;
