-- Partitions of messages stay: they go with their table in 0002.
DROP SCHEMA engine CASCADE;
