-- Runs after the files of sql/engine: nobody may call what is not granted by name, and haus_engine owns what serves many
-- people at once. Partitions are made by whoever migrates.
DO $$
DECLARE
    f regprocedure;
    v regclass;
BEGIN
    FOR f IN SELECT p.oid::regprocedure FROM pg_proc p WHERE p.pronamespace = 'engine'::regnamespace LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f);
        IF f::text NOT LIKE 'engine.ensure_message_partitions%' THEN
            EXECUTE format('ALTER FUNCTION %s OWNER TO haus_engine', f);
        END IF;
    END LOOP;
    FOR v IN SELECT c.oid::regclass FROM pg_class c WHERE c.relnamespace = 'engine'::regnamespace AND c.relkind = 'v' LOOP
        EXECUTE format('ALTER VIEW %s OWNER TO haus_engine', v);
    END LOOP;
END $$;
