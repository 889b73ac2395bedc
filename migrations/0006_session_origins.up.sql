-- The network a session was last used from, to know it again: guesses at a password from elsewhere must not lock it out.
ALTER TABLE sessions ADD COLUMN origin bytea;
COMMENT ON COLUMN sessions.origin IS 'HMAC-SHA-256 of account and network (IPv4 address, IPv6 /64)';
