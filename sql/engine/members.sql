-- The first members of a thread (or p_profile alone) for one of its members: the asker, then by role, then by time of joining.
-- The asker is looked up and the others come in the order of their index: no sort, however many there are.
CREATE FUNCTION engine.members(p_actor uuid, p_thread uuid, p_profile uuid, p_limit integer)
RETURNS TABLE (profile_id uuid, display_name text, avatar text, role text, nickname text, joined_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp SET enable_seqscan = off SET enable_sort = off
SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    IF NOT EXISTS (SELECT FROM thread_members a WHERE a.thread_id = p_thread AND a.profile_id = p_actor AND a.left_at IS NULL) THEN
        RETURN;
    END IF;
    RETURN QUERY
    SELECT m.profile_id, p.display_name, p.avatar, m.role::text, m.nickname, m.joined_at
    FROM thread_members m JOIN profiles p ON p.id = m.profile_id
    WHERE m.thread_id = p_thread AND m.left_at IS NULL AND m.profile_id = coalesce(p_profile, p_actor);
    IF p_profile IS NULL THEN
        RETURN QUERY
        SELECT m.profile_id, p.display_name, p.avatar, m.role::text, m.nickname, m.joined_at
        FROM (SELECT m.* FROM thread_members m WHERE m.thread_id = p_thread AND m.left_at IS NULL
              ORDER BY m.role DESC, m.joined_at, m.profile_id LIMIT p_limit + 1) m
        JOIN profiles p ON p.id = m.profile_id
        WHERE m.profile_id <> p_actor
        ORDER BY m.role DESC, m.joined_at, m.profile_id LIMIT p_limit - 1;
    END IF;
END $$;
GRANT EXECUTE ON FUNCTION engine.members TO haus_app;
