-- Names as they are looked for: without accents and case, letters of their own (ø, ß, æ …) by their nearest plain ones. Marks
-- that are letters in their script (vowel signs, voicing marks of kana) stay. Used by the index and by the search alike; in
-- the form whose names are bound when it is made, so that no search_path changes what an index holds.
CREATE FUNCTION folded(p_text text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN replace(replace(replace(replace(replace(
    lower(translate(
        normalize(regexp_replace(normalize(p_text, NFKD), U&'[\0300-\036F\0483-\0487\0591-\05BD\05BF\05C1\05C2\05C4\05C5\05C7\064B-\065F\0670]', '', 'g'), NFC),
        U&'\00D8\00F8\0141\0142\0110\0111\0126\0127\0131\0166\0167\00D0\00F0\00C6\0152\00DE',
        U&'OoLlDdHhiTtDd\00E6\0153\00FE')),
    U&'\00DF', 'ss'), U&'\1E9E', 'ss'), U&'\00E6', 'ae'), U&'\0153', 'oe'), U&'\00FE', 'th');

DROP INDEX idx_profiles_words;
CREATE INDEX idx_profiles_words ON profiles
    USING gin (to_tsvector('simple', folded(display_name || ' ' || coalesce(ballroom_name, ''))));
