DROP INDEX idx_profiles_suspended_until;
DROP INDEX idx_thread_members_present;
REVOKE SELECT ON user_settings FROM haus_engine;
UPDATE user_settings SET privacy = jsonb_set(privacy, '{messages}', '"friends"') WHERE privacy ->> 'messages' = 'public';
ALTER TABLE user_settings
    ALTER COLUMN privacy SET DEFAULT '{"profile": "public", "posts": "public", "messages": "friends"}';
