-- Words of display and ballroom names, for the search by their beginnings (`identity::search` has the same expression).
CREATE INDEX idx_profiles_words ON profiles
    USING gin (to_tsvector('simple', display_name || ' ' || coalesce(ballroom_name, '')));
