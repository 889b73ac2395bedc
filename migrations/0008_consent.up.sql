-- Who may open a talk: as long as nobody can follow anybody, new accounts are open to messages. Nobody could choose before,
-- so whoever has the old default has not asked for it; but where this step was taken back once (the runner keeps the time),
-- those who were there then had been asked already.
ALTER TABLE user_settings
    ALTER COLUMN privacy SET DEFAULT '{"profile": "public", "posts": "public", "messages": "public"}';
UPDATE user_settings SET privacy = jsonb_set(privacy, '{messages}', '"public"')
WHERE privacy ->> 'messages' = 'friends'
  AND created_at > coalesce((SELECT r.reverted_at FROM schema_reverted r WHERE r.version = 8), '-infinity');
GRANT SELECT ON user_settings TO haus_engine;

-- What a person is in now is counted at each join and read at each connect; what was left may be much more.
CREATE INDEX idx_thread_members_present ON thread_members (profile_id) WHERE left_at IS NULL;
-- The job that lifts suspensions looks here.
CREATE INDEX idx_profiles_suspended_until ON profiles (suspended_until) WHERE status = 'SUSPENDED';
