ALTER TABLE profiles DROP CONSTRAINT profiles_house_id_fkey;
DROP TABLE user_updates, user_streams, message_mentions, messages, thread_updates, thread_spans, thread_members, threads,
    house_members;
UPDATE profiles SET house_id = NULL WHERE house_id IS NOT NULL;
DROP TABLE houses;
DROP TYPE media_type, message_type, thread_role, thread_type, house_role;
