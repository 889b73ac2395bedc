-- Whom people block stays in their settings; the threads follow from it.
DROP TRIGGER user_settings_blocks ON user_settings;
DROP FUNCTION close_direct_threads();
ALTER TABLE user_settings DROP CONSTRAINT user_settings_blocked_most;
ALTER TABLE threads DROP COLUMN blocked_at;
