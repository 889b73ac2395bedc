-- Whether a person lets an actor open a DIRECT thread with it or put it into a GROUP: privacy.messages. friends are who
-- share a house, until there are follows; who follows cannot be known before, so followers is nobody yet.
CREATE FUNCTION engine.consents(p_actor uuid, p_profile uuid) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT p_actor = p_profile OR CASE coalesce((SELECT s.privacy ->> 'messages' FROM user_settings s WHERE s.user_id = p_profile), 'public')
        WHEN 'public' THEN true
        WHEN 'friends' THEN EXISTS (
            SELECT FROM house_members a JOIN house_members b ON b.house_id = a.house_id
            WHERE a.profile_id = p_actor AND b.profile_id = p_profile)
        ELSE false
    END
$$;
