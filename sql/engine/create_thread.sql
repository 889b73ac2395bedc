-- Makes a thread, or finds the DIRECT one of the pair (code 'exists', its id in data). Who may is judged here alone: DIRECT
-- who may write, GROUP the ACTIVE, HOUSE and ANNOUNCE the platform's ADMINs, an ANNOUNCE of a house also its leaders (house
-- role LEADER or above). p_threads: threads of a person.
CREATE FUNCTION engine.create_thread(
    p_id uuid, p_type text, p_name text, p_description text, p_house uuid, p_creator uuid, p_members uuid[], p_direct_key text,
    p_threads integer)
RETURNS SETOF engine.change_row
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_found uuid;
    v_code text;
    v_judged engine.change_row;
BEGIN
    SELECT CASE
        WHEN NOT engine.may_act(p.status, p.role, p.suspended_until) THEN 'forbidden'
        WHEN p_type <> 'DIRECT' AND engine.standing(p.status, p.role, p.suspended_until) <> 'ACTIVE' THEN 'forbidden'
        WHEN p_type = 'HOUSE' AND p.role <> 'ADMIN' THEN 'forbidden'
        WHEN p_type = 'ANNOUNCE' AND p.role <> 'ADMIN' AND NOT EXISTS (
            SELECT FROM house_members h WHERE h.house_id = p_house AND h.profile_id = p_creator AND h.role >= 'LEADER') THEN 'forbidden'
        WHEN p_house IS NOT NULL AND NOT EXISTS (SELECT FROM houses h WHERE h.id = p_house) THEN 'invalid_house'
        END
    INTO v_code FROM profiles p WHERE p.id = p_creator;
    IF NOT FOUND OR v_code IS NOT NULL THEN
        RETURN NEXT engine.refused(coalesce(v_code, 'forbidden'));
        RETURN;
    END IF;
    IF p_direct_key IS NOT NULL THEN
        -- A block of one of the two is committed before, or closes the thread (close_direct_threads).
        PERFORM pg_advisory_xact_lock(hashtextextended('direct ' || p_direct_key, 0));
    END IF;
    -- Existing talks go on whatever the settings say now.
    SELECT t.id INTO v_found FROM threads t WHERE t.direct_key = p_direct_key;
    IF NOT FOUND THEN
        INSERT INTO threads (id, type, name, description, house_id, direct_key)
        VALUES (p_id, p_type::thread_type, p_name, p_description, p_house, p_direct_key)
        -- Any of them: one DIRECT thread a pair, one HOUSE thread a house. Two at once wait here for each other.
        ON CONFLICT DO NOTHING;
        IF FOUND THEN
            v_judged := engine.judge_newcomers(p_type::thread_type, p_house, p_creator, p_members, p_threads);
            IF v_judged.code IS NOT NULL THEN
                DELETE FROM threads t WHERE t.id = p_id;
                RETURN NEXT v_judged;
            ELSE
                RETURN QUERY SELECT * FROM engine.let_in(p_id, p_creator, p_members, CASE WHEN p_type = 'DIRECT' THEN NULL ELSE p_creator END);
            END IF;
            RETURN;
        ELSIF p_direct_key IS NULL THEN
            RETURN NEXT engine.refused('conflict');
            RETURN;
        END IF;
        SELECT t.id INTO v_found FROM threads t WHERE t.direct_key = p_direct_key;
    END IF;
    RETURN QUERY SELECT 'exists', NULL::text, NULL::uuid, NULL::bigint, NULL::timestamptz, NULL::smallint,
                        jsonb_build_object('threadId', v_found);
END $$;
GRANT EXECUTE ON FUNCTION engine.create_thread TO haus_app;
