DROP INDEX idx_profiles_words;
DROP FUNCTION folded(text);
CREATE INDEX idx_profiles_words ON profiles
    USING gin (to_tsvector('simple', display_name || ' ' || coalesce(ballroom_name, '')));
