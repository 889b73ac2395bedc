-- Changes a piece of the sends' function; fails where the function no longer has it.
CREATE FUNCTION pg_temp.swap(p_old text, p_new text) RETURNS void LANGUAGE plpgsql AS $swap$
DECLARE
    v_definition text := pg_get_functiondef('engine.append_messages'::regproc);
BEGIN
    IF position(p_old IN v_definition) = 0 THEN
        RAISE EXCEPTION 'engine.append_messages has changed, this is not in it: %', p_old;
    END IF;
    EXECUTE replace(v_definition, p_old, p_new);
END $swap$;

-- The pieces below are those of the judged step: it alone is taken.
SELECT pg_temp.swap($$IF p_new AND$$, $$IF false AND$$);
