-- A person and one of its threads, flat; thread_id is NULL where there is none.
CREATE TYPE engine.person_thread AS (
    profile_id uuid, display_name text, profile_role text, status text, user_seq bigint,
    thread_id uuid, type text, name text, description text, avatar text, house_id uuid, is_archived boolean,
    is_muted boolean, member_count integer, seq bigint, no bigint, created_at timestamptz, last_message_at timestamptz,
    role text, mark_no bigint, mark_rev integer, muted_until timestamptz, join_seq bigint, mentions bigint,
    peer_id uuid, peer_name text, peer_avatar text, has_left boolean, moved_at timestamptz, member_id uuid);
