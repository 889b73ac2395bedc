-- A person and its threads, newest first: arrays that run parallel, NULL where there is no thread. The first threads with all
-- that a row shows, the others with their positions alone.
CREATE TYPE engine.person_threads AS (
    profile_id uuid, display_name text, profile_role text, status text, user_seq bigint,
    thread_id uuid[], type text[], name text[], description text[], avatar text[], house_id uuid[], is_archived boolean[],
    is_muted boolean[], member_count integer[], seq bigint[], no bigint[], created_at timestamptz[],
    last_message_at timestamptz[], role text[], mark_no bigint[], mark_rev integer[], muted_until timestamptz[],
    join_seq bigint[], mentions bigint[], peer_id uuid[], peer_name text[], peer_avatar text[],
    further_id uuid[], further_seq bigint[], further_join_seq bigint[]);
