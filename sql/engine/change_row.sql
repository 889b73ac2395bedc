-- What a change of membership did: one row a log row (stream 'T') and a user-stream row (stream 'U').
CREATE TYPE engine.change_row AS (code text, stream text, profile_id uuid, seq bigint, at timestamptz, kind smallint, data jsonb);
