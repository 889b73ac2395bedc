-- Whether a reader sees the whole of a profile, its status too: the one rule of privacy.profile. public is for everybody,
-- members for the ACTIVE; nobody follows anybody yet. A block closes it, but not for platform ADMINs, as
-- long as these are ACTIVE. Inlined like engine.standing.
CREATE FUNCTION engine.is_open(
    p_reader uuid, p_role user_role, p_standing user_status, p_profile uuid, p_privacy jsonb, p_are_apart boolean) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(p_reader = p_profile, false) OR coalesce(p_role = 'ADMIN' AND p_standing = 'ACTIVE', false) OR NOT p_are_apart AND
        CASE coalesce(p_privacy ->> 'profile', 'public')
            WHEN 'public' THEN true WHEN 'members' THEN coalesce(p_standing = 'ACTIVE', false) ELSE false END
$$;
GRANT EXECUTE ON FUNCTION engine.is_open TO haus_app;
