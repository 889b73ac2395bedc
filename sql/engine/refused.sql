CREATE FUNCTION engine.refused(p_code text) RETURNS engine.change_row LANGUAGE sql IMMUTABLE AS $$
    SELECT ROW(p_code, NULL, NULL, NULL, NULL, NULL, NULL)::engine.change_row
$$;
