-- What people chose stays theirs: the default alone goes back.
DROP INDEX idx_profiles_suspended_until;
DROP INDEX idx_thread_members_present;
REVOKE SELECT ON user_settings FROM haus_engine;
ALTER TABLE user_settings
    ALTER COLUMN privacy SET DEFAULT '{"profile": "public", "posts": "public", "messages": "friends"}';
