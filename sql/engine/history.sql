-- Messages as one member may see them, nearest first: p_below of those before number p_before, p_above of those after
-- p_after; in each stay up to the one with which their bytes pass p_bytes. A message counts less here than it makes as JSON,
-- so the caller, who cuts by that, sees that something is missing. No row: never a member. The first row carries the head
-- (seq, and no of the newest message) the person may see; all in one snapshot. Each stay is a range of the index, so a page
-- costs the same at any depth.
CREATE FUNCTION engine.history(p_actor uuid, p_thread uuid, p_before bigint, p_below integer, p_after bigint, p_above integer,
    p_bytes integer)
RETURNS TABLE (id uuid, no bigint, seq bigint, sender_id uuid, content text, media_url text, media_type text, type text,
    reply_to_id uuid, mentions uuid[], nonce uuid, is_edited boolean, is_deleted boolean, is_pinned boolean, rev integer,
    sent_at timestamptz, edited_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET enable_material = off SET enable_bitmapscan = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    v_low bigint[];
    v_high bigint[];
    v_high_seq bigint;
    v_found integer := 0;
    v_rows integer;
BEGIN
    SELECT array_agg(r.low_no ORDER BY r.low_no), array_agg(r.high_no ORDER BY r.low_no), max(r.high_seq)
    INTO v_low, v_high, v_high_seq FROM engine.visible_ranges(p_thread, p_actor) r;
    IF v_low IS NULL THEN
        RETURN;
    END IF;
    RETURN QUERY
    SELECT NULL::uuid, least(t.no, v_high[cardinality(v_high)]), least(t.seq, v_high_seq), NULL::uuid, NULL, NULL, NULL, NULL,
           NULL::uuid, NULL::uuid[], NULL::uuid, NULL::boolean, NULL::boolean, NULL::boolean, NULL::integer, NULL::timestamptz,
           NULL::timestamptz
    FROM threads t WHERE t.id = p_thread;
    FOR i IN REVERSE cardinality(v_low)..1 LOOP
        EXIT WHEN v_found >= p_below;
        RETURN QUERY
        SELECT g.id, g.no, g.seq, g.sender_id, g.content, g.media_url, g.media_type, g.type, g.reply_to_id, g.mentions,
               g.nonce, g.is_edited, g.is_deleted, g.is_pinned, g.rev, g.sent_at, g.edited_at
        FROM (SELECT g.*, sum(380 + CASE WHEN g.is_deleted THEN 0 ELSE coalesce(octet_length(g.content), 0) END)
                  OVER (ORDER BY g.no DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
              FROM (SELECT g.id, g.no, g.seq, g.sender_id, g.content, g.media_url, g.media_type::text, g.type::text, g.reply_to_id,
                           g.mentions, g.nonce, g.is_edited, g.is_deleted, g.is_pinned, g.rev, g.sent_at, g.edited_at
                    FROM messages g
                    WHERE g.thread_id = p_thread AND g.no < p_before AND g.no >= v_low[i] AND g.no <= v_high[i]
                    ORDER BY g.no DESC LIMIT p_below - v_found) g) g
        WHERE g.before IS NULL OR g.before <= p_bytes
        ORDER BY g.no DESC;
        GET DIAGNOSTICS v_rows = ROW_COUNT;
        v_found := v_found + v_rows;
    END LOOP;
    v_found := 0;
    FOR i IN 1..cardinality(v_low) LOOP
        EXIT WHEN v_found >= p_above;
        RETURN QUERY
        SELECT g.id, g.no, g.seq, g.sender_id, g.content, g.media_url, g.media_type, g.type, g.reply_to_id, g.mentions,
               g.nonce, g.is_edited, g.is_deleted, g.is_pinned, g.rev, g.sent_at, g.edited_at
        FROM (SELECT g.*, sum(380 + CASE WHEN g.is_deleted THEN 0 ELSE coalesce(octet_length(g.content), 0) END)
                  OVER (ORDER BY g.no ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
              FROM (SELECT g.id, g.no, g.seq, g.sender_id, g.content, g.media_url, g.media_type::text, g.type::text, g.reply_to_id,
                           g.mentions, g.nonce, g.is_edited, g.is_deleted, g.is_pinned, g.rev, g.sent_at, g.edited_at
                    FROM messages g
                    WHERE g.thread_id = p_thread AND g.no > p_after AND g.no >= v_low[i] AND g.no <= v_high[i]
                    ORDER BY g.no LIMIT p_above - v_found) g) g
        WHERE g.before IS NULL OR g.before <= p_bytes
        ORDER BY g.no;
        GET DIAGNOSTICS v_rows = ROW_COUNT;
        v_found := v_found + v_rows;
    END LOOP;
END $$;
GRANT EXECUTE ON FUNCTION engine.history TO haus_app;
