-- Whether a person lets an actor open a DIRECT thread with it or put it into a GROUP: privacy.messages, and no block between
-- the two. friends are who share a house, until there are follows; who follows cannot be known before, so followers is
-- nobody yet.
CREATE FUNCTION engine.consents(p_actor uuid, p_profile uuid) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT p_actor = p_profile OR NOT engine.are_apart(p_actor, a.blocked_users, p_profile, s.blocked_users)
        AND CASE coalesce(s.privacy ->> 'messages', 'public')
            WHEN 'public' THEN true
            WHEN 'friends' THEN EXISTS (
                SELECT FROM house_members a JOIN house_members b ON b.house_id = a.house_id
                WHERE a.profile_id = p_actor AND b.profile_id = p_profile)
            ELSE false
        END
    FROM (SELECT) always
    LEFT JOIN user_settings a ON a.user_id = p_actor
    LEFT JOIN user_settings s ON s.user_id = p_profile
$$;
