DROP TABLE idempotency_keys, revocations, ws_tickets, refresh_tokens, sessions, user_settings, profiles, users;
DROP FUNCTION set_updated_at();
DROP TYPE user_status;
DROP TYPE user_role;
