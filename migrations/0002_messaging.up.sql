-- Houses, threads, members with stays, the log of every thread, messages, user streams.
-- Rights: the application role reads; every change goes through the functions of 0003_engine.

CREATE TYPE house_role AS ENUM ('MEMBER', 'CHILD', 'LEADER', 'MOTHER', 'FOUNDER');
CREATE TYPE thread_type AS ENUM ('DIRECT', 'GROUP', 'HOUSE', 'ANNOUNCE');
CREATE TYPE thread_role AS ENUM ('MEMBER', 'MODERATOR', 'ADMIN');
CREATE TYPE message_type AS ENUM ('TEXT', 'MEDIA', 'SYSTEM', 'DELETED');
CREATE TYPE media_type AS ENUM ('IMAGE', 'VIDEO', 'AUDIO', 'DOCUMENT');

CREATE TABLE houses (
    id uuid PRIMARY KEY,
    name text NOT NULL UNIQUE,
    description text,
    color text NOT NULL DEFAULT '#8b5cf6',
    logo text,
    cover_image text,
    founded timestamptz NOT NULL,
    member_count integer NOT NULL DEFAULT 0,
    location text,
    website text,
    is_active boolean NOT NULL DEFAULT true,
    is_public boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE TRIGGER houses_updated_at BEFORE UPDATE ON houses FOR EACH ROW EXECUTE FUNCTION set_updated_at();

CREATE TABLE house_members (
    id uuid PRIMARY KEY,
    profile_id uuid NOT NULL REFERENCES profiles (id) ON DELETE CASCADE,
    house_id uuid NOT NULL REFERENCES houses (id) ON DELETE CASCADE,
    role house_role NOT NULL DEFAULT 'MEMBER',
    title text,
    joined_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (profile_id, house_id)
);
CREATE INDEX idx_house_members_house ON house_members (house_id);

ALTER TABLE profiles ADD CONSTRAINT profiles_house_id_fkey FOREIGN KEY (house_id) REFERENCES houses (id);

-- seq: head of the thread's stream. no: messages alone. last_ms: time inside the newest message id.
-- No index on what a send changes, and room in the page: these updates stay HOT.
CREATE TABLE threads (
    id uuid PRIMARY KEY,
    type thread_type NOT NULL,
    name text,
    description text,
    avatar text,
    is_archived boolean NOT NULL DEFAULT false,
    is_muted boolean NOT NULL DEFAULT false,
    house_id uuid REFERENCES houses (id),
    direct_key text UNIQUE,
    slow_mode_s integer NOT NULL DEFAULT 0 CHECK (slow_mode_s BETWEEN 0 AND 21600),
    history_for_newcomers boolean NOT NULL DEFAULT false,
    member_count integer NOT NULL DEFAULT 0,
    seq bigint NOT NULL DEFAULT 0,
    no bigint NOT NULL DEFAULT 0,
    last_ms bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    last_message_at timestamptz,
    CHECK ((type = 'DIRECT') = (direct_key IS NOT NULL))
) WITH (fillfactor = 50);
CREATE UNIQUE INDEX idx_threads_house ON threads (house_id) WHERE type = 'HOUSE';
CREATE TRIGGER threads_updated_at
    BEFORE UPDATE OF name, description, avatar, is_archived, is_muted, slow_mode_s, history_for_newcomers ON threads
    FOR EACH ROW EXECUTE FUNCTION set_updated_at();

-- The present state of a membership. receipt_no: what others see; mark_no, mark_rev: the own badge.
CREATE TABLE thread_members (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    thread_id uuid NOT NULL REFERENCES threads (id) ON DELETE CASCADE,
    profile_id uuid NOT NULL REFERENCES profiles (id) ON DELETE CASCADE,
    role thread_role NOT NULL DEFAULT 'MEMBER',
    nickname text,
    joined_at timestamptz NOT NULL DEFAULT now(),
    left_at timestamptz,
    join_seq bigint NOT NULL,
    join_no bigint NOT NULL,
    receipt_no bigint NOT NULL DEFAULT 0,
    mark_no bigint NOT NULL DEFAULT 0,
    mark_rev integer NOT NULL DEFAULT 0,
    last_read_at timestamptz,
    last_read_message_id uuid,
    muted_until timestamptz,
    last_sent_at timestamptz,
    UNIQUE (thread_id, profile_id)
) WITH (fillfactor = 70);
CREATE INDEX idx_thread_members_profile ON thread_members (profile_id, thread_id);

-- One row a stay: who may see which part of a stream. Both ends inclusive.
CREATE TABLE thread_spans (
    thread_id uuid NOT NULL,
    profile_id uuid NOT NULL,
    join_seq bigint NOT NULL,
    join_no bigint NOT NULL,
    leave_seq bigint,
    leave_no bigint,
    PRIMARY KEY (thread_id, profile_id, join_seq)
);

-- The log: thin rows, for ever, no message text. The database itself refuses a double seq or nonce.
-- No foreign keys here nor on messages: every insert happens under the lock of its thread's row, after the member's
-- row was read, and a check by trigger would double the cost of a row.
CREATE TABLE thread_updates (
    thread_id uuid NOT NULL,
    seq bigint NOT NULL,
    kind smallint NOT NULL,
    actor_id uuid NOT NULL,
    message_id uuid,
    no bigint,
    nonce uuid,
    body_mac bytea,
    at timestamptz NOT NULL,
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    data jsonb,
    PRIMARY KEY (thread_id, seq)
) PARTITION BY HASH (thread_id);
CREATE UNIQUE INDEX thread_updates_nonce ON thread_updates (thread_id, actor_id, nonce) WHERE nonce IS NOT NULL;
CREATE INDEX thread_updates_xid ON thread_updates (xid);
DO $$
BEGIN
    FOR part IN 0..7 LOOP
        EXECUTE format('CREATE TABLE thread_updates_%s PARTITION OF thread_updates FOR VALUES WITH (MODULUS 8, REMAINDER %s)', part, part);
    END LOOP;
END $$;

-- Range-partitioned by date, on the UUIDv7 id: its first 48 bits are the millisecond.
CREATE TABLE messages (
    id uuid PRIMARY KEY,
    thread_id uuid NOT NULL,
    sender_id uuid NOT NULL,
    no bigint NOT NULL,
    seq bigint NOT NULL,
    content text,
    media_url text,
    media_type media_type,
    type message_type NOT NULL DEFAULT 'TEXT',
    is_edited boolean NOT NULL DEFAULT false,
    is_deleted boolean NOT NULL DEFAULT false,
    is_pinned boolean NOT NULL DEFAULT false,
    rev integer NOT NULL DEFAULT 1,
    reply_to_id uuid,
    mentions uuid[],
    nonce uuid,
    sent_at timestamptz NOT NULL,
    edited_at timestamptz,
    deleted_at timestamptz
) PARTITION BY RANGE (id);
CREATE INDEX idx_messages_thread_no ON messages (thread_id, no);

CREATE TABLE message_mentions (
    thread_id uuid NOT NULL,
    profile_id uuid NOT NULL,
    no bigint NOT NULL,
    PRIMARY KEY (thread_id, profile_id, no)
);

-- One stream per profile; seq under the row's lock, taken after the locks of threads.
CREATE TABLE user_streams (
    profile_id uuid PRIMARY KEY,
    seq bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

CREATE TABLE user_updates (
    profile_id uuid NOT NULL,
    seq bigint NOT NULL,
    kind smallint NOT NULL,
    at timestamptz NOT NULL,
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    data jsonb,
    PRIMARY KEY (profile_id, seq)
);
CREATE INDEX user_updates_xid ON user_updates (xid);

GRANT SELECT ON houses, house_members, threads, thread_members, thread_spans, messages, message_mentions,
    thread_updates, user_streams, user_updates TO haus_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON houses, house_members, threads, thread_members, thread_spans, messages,
    message_mentions, thread_updates, user_streams, user_updates TO haus_engine;
GRANT SELECT ON profiles TO haus_engine;
