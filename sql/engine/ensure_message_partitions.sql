-- Partitions of messages for the years asked for; returns how many were made.
CREATE FUNCTION engine.ensure_message_partitions(first_year integer, last_year integer) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    made integer := 0;
    from_id uuid;
    to_id uuid;
BEGIN
    FOR y IN first_year..last_year LOOP
        CONTINUE WHEN to_regclass('messages_' || y) IS NOT NULL;
        from_id := engine.uuid_of_ms((extract(epoch FROM make_timestamptz(y, 1, 1, 0, 0, 0, 'UTC')) * 1000)::bigint);
        to_id := engine.uuid_of_ms((extract(epoch FROM make_timestamptz(y + 1, 1, 1, 0, 0, 0, 'UTC')) * 1000)::bigint);
        EXECUTE format('CREATE TABLE messages_%s (LIKE messages INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', y);
        EXECUTE format('ALTER TABLE messages ATTACH PARTITION messages_%s FOR VALUES FROM (%L) TO (%L)', y, from_id, to_id);
        made := made + 1;
    END LOOP;
    RETURN made;
END $$;
