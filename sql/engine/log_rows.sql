-- The log with its messages at their present revision: what every replay is rendered from.
CREATE VIEW engine.log_rows AS
    SELECT u.thread_id, u.seq, u.kind, u.actor_id, u.no, u.at, u.data, u.message_id, g.id IS NULL AS message_gone, g.sender_id,
           g.content, g.media_url, g.media_type::text, g.type::text, g.reply_to_id, g.mentions, u.nonce, g.is_edited,
           g.is_deleted, g.is_pinned, g.rev, g.sent_at, g.edited_at, g.deleted_at
    FROM thread_updates u LEFT JOIN messages g ON g.id = u.message_id;
