DROP INDEX idx_profiles_words;
