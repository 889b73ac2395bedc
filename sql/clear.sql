-- Runs before the files of sql/engine, in the same transaction: takes away what the last release put there. Without
-- CASCADE, so that whatever stands on a function (a policy, a trigger) is named instead of lost.
DO $$
DECLARE
    v_functions text;
    v_views text;
    v_types text;
BEGIN
    SELECT string_agg(p.oid::regprocedure::text, ', ') INTO v_functions
    FROM pg_proc p WHERE p.pronamespace = to_regnamespace('engine');
    IF v_functions IS NOT NULL THEN
        EXECUTE 'DROP FUNCTION ' || v_functions;
    END IF;
    SELECT string_agg(c.oid::regclass::text, ', ') INTO v_views
    FROM pg_class c WHERE c.relnamespace = to_regnamespace('engine') AND c.relkind = 'v';
    IF v_views IS NOT NULL THEN
        EXECUTE 'DROP VIEW ' || v_views;
    END IF;
    SELECT string_agg(c.oid::regclass::text, ', ') INTO v_types
    FROM pg_class c WHERE c.relnamespace = to_regnamespace('engine') AND c.relkind = 'c';
    IF v_types IS NOT NULL THEN
        EXECUTE 'DROP TYPE ' || v_types;
    END IF;
END $$;
