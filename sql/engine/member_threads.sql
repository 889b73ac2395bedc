-- A thread as one of its members, present or past (has_left), sees it.
CREATE VIEW engine.member_threads AS
    SELECT t.id AS thread_id, t.type::text, t.name, t.description, t.avatar, t.house_id, t.is_archived,
           t.is_muted, t.member_count, t.seq, t.no, t.created_at, t.last_message_at, m.role::text, m.mark_no, m.mark_rev,
           m.muted_until, m.join_seq,
           CASE WHEN t.no > m.mark_no THEN (SELECT count(*) FROM message_mentions x
                WHERE x.thread_id = m.thread_id AND x.profile_id = m.profile_id AND x.no > m.mark_no)
           ELSE 0 END AS mentions,
           o.id AS peer_id, o.display_name AS peer_name, o.avatar AS peer_avatar, m.left_at IS NOT NULL AS has_left,
           coalesce(t.last_message_at, t.created_at) AS moved_at, m.profile_id
    FROM thread_members m
    JOIN threads t ON t.id = m.thread_id
    LEFT JOIN profiles o ON t.type = 'DIRECT' AND o.id = CASE
        WHEN left(t.direct_key, 36) = m.profile_id::text THEN right(t.direct_key, 36) ELSE left(t.direct_key, 36) END::uuid;
