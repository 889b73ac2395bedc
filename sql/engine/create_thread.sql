-- Makes a thread, or finds the DIRECT one of the pair (code 'exists', its id in data). The creator's status and role are
-- judged here: PENDING opens DIRECT threads only, HOUSE and ANNOUNCE are the platform ADMINs'.
CREATE FUNCTION engine.create_thread(
    p_id uuid, p_type text, p_name text, p_description text, p_house uuid, p_creator uuid, p_members uuid[], p_direct_key text)
RETURNS SETOF engine.change_row
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_found uuid;
    v_code text;
BEGIN
    SELECT CASE
        WHEN p.status NOT IN ('ACTIVE', 'PENDING') THEN 'forbidden'
        WHEN p_type <> 'DIRECT' AND p.status <> 'ACTIVE' THEN 'forbidden'
        WHEN p_type IN ('HOUSE', 'ANNOUNCE') AND p.role <> 'ADMIN' THEN 'forbidden'
        WHEN p_house IS NOT NULL AND NOT EXISTS (SELECT FROM houses h WHERE h.id = p_house) THEN 'invalid_house'
        WHEN p_type = 'HOUSE' AND EXISTS (SELECT FROM threads t WHERE t.house_id = p_house AND t.type = 'HOUSE') THEN 'conflict'
        END
    INTO v_code FROM profiles p WHERE p.id = p_creator;
    IF NOT FOUND OR v_code IS NOT NULL THEN
        RETURN NEXT engine.refused(coalesce(v_code, 'forbidden'));
        RETURN;
    END IF;
    IF EXISTS (SELECT FROM unnest(p_members) w (id)
               WHERE NOT EXISTS (SELECT FROM profiles p WHERE p.id = w.id AND p.status IN ('ACTIVE', 'PENDING'))) THEN
        RETURN NEXT engine.refused('invalid');
        RETURN;
    END IF;
    INSERT INTO threads (id, type, name, description, house_id, direct_key)
    VALUES (p_id, p_type::thread_type, p_name, p_description, p_house, p_direct_key)
    ON CONFLICT (direct_key) DO NOTHING;
    IF NOT FOUND THEN
        SELECT t.id INTO v_found FROM threads t WHERE t.direct_key = p_direct_key;
        RETURN QUERY SELECT 'exists', NULL::text, NULL::uuid, NULL::bigint, NULL::timestamptz, NULL::smallint,
                            jsonb_build_object('threadId', v_found);
        RETURN;
    END IF;
    RETURN QUERY SELECT * FROM engine.let_in(p_id, p_creator, p_members, CASE WHEN p_type = 'DIRECT' THEN NULL ELSE p_creator END);
END $$;
GRANT EXECUTE ON FUNCTION engine.create_thread TO haus_app;
