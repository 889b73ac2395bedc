-- Pages of thread logs after given positions: of each at most p_limit rows and about p_bytes bytes of frames, and one row
-- at least. The number of the ask comes with each row. For the node, which applies visibility itself (every asker is
-- attached within a stay it has checked). The planner settings of this and the readers below keep a plan good that a
-- session cached while the tables were empty, and make it once: planned anew, a page over the partitions takes four times
-- as long. Only sizes are looked at beyond the bytes asked for: a long text lies elsewhere and is not fetched for that.
CREATE FUNCTION engine.log_pages(p_threads uuid[], p_since bigint[], p_limit integer, p_bytes bigint)
RETURNS TABLE (thread_id uuid, seq bigint, kind smallint, actor_id uuid, no bigint, at timestamptz, data jsonb, message_id uuid,
    message_gone boolean, sender_id uuid, content text, media_url text, media_type text, type text, reply_to_id uuid,
    mentions uuid[], nonce uuid, is_edited boolean, is_deleted boolean, is_pinned boolean, rev integer, sent_at timestamptz,
    edited_at timestamptz, deleted_at timestamptz, ord integer)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET enable_material = off SET enable_bitmapscan = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT l.thread_id, l.seq, l.kind, l.actor_id, l.no, l.at, l.data, l.message_id, l.message_gone, l.sender_id, l.content,
           l.media_url, l.media_type, l.type, l.reply_to_id, l.mentions, l.nonce, l.is_edited, l.is_deleted, l.is_pinned,
           l.rev, l.sent_at, l.edited_at, l.deleted_at, l.ord::integer
    FROM (
        SELECT l.*, w.ord, coalesce(sum(s.bytes) OVER (PARTITION BY w.ord ORDER BY l.seq
               ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS bytes_before
        FROM unnest(p_threads, p_since) WITH ORDINALITY AS w (id, since, ord)
        CROSS JOIN LATERAL (
            SELECT l.* FROM engine.log_rows l WHERE l.thread_id = w.id AND l.seq > w.since ORDER BY l.seq LIMIT p_limit) l
        CROSS JOIN LATERAL (SELECT 300 + coalesce(octet_length(l.content), 0) + coalesce(octet_length(l.media_url), 0)
            + 40 * coalesce(cardinality(l.mentions), 0) + 2 * coalesce(pg_column_size(l.data), 0)) s (bytes)) l
    WHERE l.bytes_before < p_bytes
    ORDER BY l.ord, l.seq;
END $$;
GRANT EXECUTE ON FUNCTION engine.log_pages TO haus_app;
