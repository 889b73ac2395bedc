-- The lowest UUIDv7 of a millisecond.
CREATE FUNCTION engine.uuid_of_ms(ms bigint) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (lpad(to_hex(ms), 12, '0') || '00000000000000000000')::uuid;
