-- The engine's reading doors: the log and its pages, heads, the snapshot poll, people with their threads, history. Like
-- those of 0003_engine they are SECURITY DEFINER with a fixed search_path and owned by haus_engine.

-- The log with its messages at their present revision: what every replay is rendered from.
CREATE VIEW engine.log_rows AS
    SELECT u.thread_id, u.seq, u.kind, u.actor_id, u.no, u.at, u.data, u.message_id, g.id IS NULL AS message_gone, g.sender_id,
           g.content, g.media_url, g.media_type::text, g.type::text, g.reply_to_id, g.mentions, u.nonce, g.is_edited,
           g.is_deleted, g.is_pinned, g.rev, g.sent_at, g.edited_at, g.deleted_at
    FROM thread_updates u LEFT JOIN messages g ON g.id = u.message_id;

-- Pages of thread logs after given positions. For the node, which applies visibility itself (every asker is attached
-- within a stay it has checked). The planner settings of this and the readers below keep a plan good that a session
-- cached while the tables were empty, and make it once: planned anew, a page over the partitions takes four times as long.
CREATE FUNCTION engine.log_pages(p_threads uuid[], p_since bigint[], p_limit integer) RETURNS SETOF engine.log_rows
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET enable_material = off SET enable_bitmapscan = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN QUERY
    SELECT l.* FROM unnest(p_threads, p_since) WITH ORDINALITY AS w (id, since, ord)
    CROSS JOIN LATERAL (
        SELECT l.* FROM engine.log_rows l WHERE l.thread_id = w.id AND l.seq > w.since ORDER BY l.seq LIMIT p_limit) l
    ORDER BY w.ord, l.seq;
END $$;

-- Stays as ranges of seq and no, both ends inclusive; a thread that shows its past gives one range from 1.
CREATE FUNCTION engine.visible_ranges(p_thread uuid, p_profile uuid)
RETURNS TABLE (low_seq bigint, high_seq bigint, low_no bigint, high_no bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    IF (SELECT t.history_for_newcomers FROM threads t WHERE t.id = p_thread) THEN
        RETURN QUERY
        SELECT 1::bigint, max(coalesce(s.leave_seq, 9223372036854775807)), 1::bigint, max(coalesce(s.leave_no, 9223372036854775807))
        FROM thread_spans s WHERE s.thread_id = p_thread AND s.profile_id = p_profile HAVING count(*) > 0;
    ELSE
        RETURN QUERY
        SELECT s.join_seq, coalesce(s.leave_seq, 9223372036854775807), s.join_no, coalesce(s.leave_no, 9223372036854775807)
        FROM thread_spans s WHERE s.thread_id = p_thread AND s.profile_id = p_profile ORDER BY 1;
    END IF;
END $$;

-- A page of the log as one person may see it. No row: never a member. The first row carries the head, seq only.
CREATE FUNCTION engine.visible_updates(p_actor uuid, p_thread uuid, p_since bigint, p_limit integer) RETURNS SETOF engine.log_rows
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET enable_material = off SET enable_bitmapscan = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_head engine.log_rows;
    v_high bigint;
BEGIN
    SELECT max(r.high_seq) INTO v_high FROM engine.visible_ranges(p_thread, p_actor) r;
    IF v_high IS NULL THEN
        RETURN;
    END IF;
    SELECT least(t.seq, v_high) INTO v_head.seq FROM threads t WHERE t.id = p_thread;
    RETURN NEXT v_head;
    RETURN QUERY
    SELECT l.* FROM engine.visible_ranges(p_thread, p_actor) r
    CROSS JOIN LATERAL (
        SELECT l.* FROM engine.log_rows l
        WHERE l.thread_id = p_thread AND l.seq > p_since AND l.seq >= r.low_seq AND l.seq <= r.high_seq
        ORDER BY l.seq LIMIT p_limit) l
    ORDER BY l.seq LIMIT p_limit;
END $$;

-- Pages of user streams after given positions.
CREATE FUNCTION engine.user_pages(p_profiles uuid[], p_since bigint[], p_limit integer)
RETURNS TABLE (profile_id uuid, seq bigint, kind smallint, at timestamptz, data jsonb)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN QUERY
    SELECT w.id, u.seq, u.kind, u.at, u.data
    FROM unnest(p_profiles, p_since) WITH ORDINALITY AS w (id, since, ord)
    CROSS JOIN LATERAL (
        SELECT u.* FROM user_updates u WHERE u.profile_id = w.id AND u.seq > w.since ORDER BY u.seq LIMIT p_limit) u
    ORDER BY w.ord, u.seq;
END $$;

-- Heads of streams: what is committed.
CREATE FUNCTION engine.heads(p_threads uuid[], p_profiles uuid[]) RETURNS TABLE (stream uuid, is_user boolean, seq bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp SET enable_seqscan = off AS $$
    SELECT t.id, false, t.seq FROM threads t WHERE t.id = ANY (p_threads)
    UNION ALL
    SELECT s.profile_id, true, s.seq FROM user_streams s WHERE s.profile_id = ANY (p_profiles)
$$;

-- Streams with rows committed since p_previous was taken, and the snapshot for the next call (first row, stream NULL).
-- A row counts when the earlier snapshot had not seen it, however late its transaction committed.
CREATE FUNCTION engine.poll(p_previous text) RETURNS TABLE (snapshot text, stream uuid, is_user boolean, seq bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off
SET max_parallel_workers_per_gather = 0 SET jit = off AS $$
#variable_conflict use_column
DECLARE
    v_previous pg_snapshot := p_previous::pg_snapshot;
    v_xmin xid8 := pg_snapshot_xmin(v_previous);
BEGIN
    RETURN QUERY SELECT pg_current_snapshot()::text, NULL::uuid, NULL::boolean, NULL::bigint;
    IF v_previous IS NOT NULL THEN
        RETURN QUERY
        SELECT NULL, u.thread_id, false, max(u.seq) FROM thread_updates u
        WHERE u.xid >= v_xmin AND NOT pg_visible_in_snapshot(u.xid, v_previous) GROUP BY u.thread_id;
        RETURN QUERY
        SELECT NULL, u.profile_id, true, max(u.seq) FROM user_updates u
        WHERE u.xid >= v_xmin AND NOT pg_visible_in_snapshot(u.xid, v_previous) GROUP BY u.profile_id;
    END IF;
END $$;

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

-- A person and one of its threads, flat; thread_id is NULL where there is none.
CREATE TYPE engine.person_thread AS (
    profile_id uuid, display_name text, profile_role text, status text, user_seq bigint,
    thread_id uuid, type text, name text, description text, avatar text, house_id uuid, is_archived boolean,
    is_muted boolean, member_count integer, seq bigint, no bigint, created_at timestamptz, last_message_at timestamptz,
    role text, mark_no bigint, mark_rev integer, muted_until timestamptz, join_seq bigint, mentions bigint,
    peer_id uuid, peer_name text, peer_avatar text, has_left boolean, moved_at timestamptz, member_id uuid);

-- A person and all its threads, newest first: arrays that run parallel, NULL where there is no thread.
CREATE TYPE engine.person_threads AS (
    profile_id uuid, display_name text, profile_role text, status text, user_seq bigint,
    thread_id uuid[], type text[], name text[], description text[], avatar text[], house_id uuid[], is_archived boolean[],
    is_muted boolean[], member_count integer[], seq bigint[], no bigint[], created_at timestamptz[],
    last_message_at timestamptz[], role text[], mark_no bigint[], mark_rev integer[], muted_until timestamptz[],
    join_seq bigint[], mentions bigint[], peer_id uuid[], peer_name text[], peer_avatar text[]);

-- Profiles with all their threads: one snapshot, one call for many (the connect path). Arrays, as a row for each thread
-- would cost both sides more than reading it.
CREATE FUNCTION engine.people_threads(p_profiles uuid[]) RETURNS SETOF engine.person_threads
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET enable_material = off SET max_parallel_workers_per_gather = 0 SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN QUERY
    SELECT p.id, p.display_name, p.role::text, p.status::text,
           coalesce((SELECT s.seq FROM user_streams s WHERE s.profile_id = p.id), 0), a.*
    FROM unnest(p_profiles) AS w (id)
    JOIN profiles p ON p.id = w.id
    CROSS JOIN LATERAL (
        SELECT array_agg(x.thread_id), array_agg(x.type), array_agg(x.name), array_agg(x.description), array_agg(x.avatar),
               array_agg(x.house_id), array_agg(x.is_archived), array_agg(x.is_muted), array_agg(x.member_count),
               array_agg(x.seq), array_agg(x.no), array_agg(x.created_at), array_agg(x.last_message_at), array_agg(x.role),
               array_agg(x.mark_no), array_agg(x.mark_rev), array_agg(x.muted_until), array_agg(x.join_seq),
               array_agg(x.mentions), array_agg(x.peer_id), array_agg(x.peer_name), array_agg(x.peer_avatar)
        FROM (SELECT x.* FROM engine.member_threads x WHERE x.profile_id = w.id AND NOT x.has_left
              ORDER BY x.moved_at DESC, x.thread_id) x) a;
END $$;

-- Threads of pairs of profile and thread, memberships that ended included; no row for a pair that never was one.
CREATE FUNCTION engine.member_rows(p_profiles uuid[], p_threads uuid[]) RETURNS SETOF engine.person_thread
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET enable_material = off SET max_parallel_workers_per_gather = 0 SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN QUERY
    SELECT w.id, p.display_name, p.role::text, p.status::text,
           coalesce((SELECT s.seq FROM user_streams s WHERE s.profile_id = w.id), 0), t.*
    FROM unnest(p_profiles, p_threads) AS w (id, thread)
    JOIN profiles p ON p.id = w.id
    CROSS JOIN LATERAL (SELECT x.* FROM engine.member_threads x WHERE x.profile_id = w.id AND x.thread_id = w.thread) t;
END $$;

-- A page of one profile's threads, newest first, below the place (p_at, p_id); NULLs begin.
CREATE FUNCTION engine.thread_list(p_profile uuid, p_at timestamptz, p_id uuid, p_limit integer) RETURNS SETOF engine.person_thread
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET enable_material = off SET max_parallel_workers_per_gather = 0 SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN QUERY
    SELECT p.id, p.display_name, p.role::text, p.status::text,
           coalesce((SELECT s.seq FROM user_streams s WHERE s.profile_id = p.id), 0), x.*
    FROM profiles p
    JOIN engine.member_threads x ON x.profile_id = p.id AND NOT x.has_left
    WHERE p.id = p_profile AND (p_at IS NULL OR x.moved_at < p_at OR x.moved_at = p_at AND x.thread_id > p_id)
    ORDER BY x.moved_at DESC, x.thread_id LIMIT p_limit;
END $$;

-- The first members of a thread (or p_profile alone) for one of its members: the asker, then by role, then by time of joining.
CREATE FUNCTION engine.members(p_actor uuid, p_thread uuid, p_profile uuid, p_limit integer)
RETURNS TABLE (profile_id uuid, display_name text, avatar text, role text, nickname text, joined_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp
SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT m.profile_id, p.display_name, p.avatar, m.role::text, m.nickname, m.joined_at
    FROM (SELECT m.* FROM thread_members m WHERE m.thread_id = p_thread AND m.left_at IS NULL
             AND (p_profile IS NULL OR m.profile_id = p_profile)
             AND EXISTS (SELECT FROM thread_members a WHERE a.thread_id = p_thread AND a.profile_id = p_actor AND a.left_at IS NULL)
          ORDER BY m.profile_id <> p_actor, m.role DESC, m.joined_at, m.profile_id LIMIT p_limit) m
    JOIN profiles p ON p.id = m.profile_id
    ORDER BY m.profile_id <> p_actor, m.role DESC, m.joined_at, m.profile_id;
END $$;

-- Messages as one member may see them, nearest first: p_below of those before number p_before, p_above of those after
-- p_after. No row: never a member. The first row carries the head (seq, and no of the newest message) the person may
-- see; all in one snapshot. Each stay is a range of the index, so a page costs the same at any depth.
CREATE FUNCTION engine.history(p_actor uuid, p_thread uuid, p_before bigint, p_below integer, p_after bigint, p_above integer)
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
        SELECT g.id, g.no, g.seq, g.sender_id, g.content, g.media_url, g.media_type::text, g.type::text, g.reply_to_id, g.mentions,
               g.nonce, g.is_edited, g.is_deleted, g.is_pinned, g.rev, g.sent_at, g.edited_at
        FROM messages g
        WHERE g.thread_id = p_thread AND g.no < p_before AND g.no >= v_low[i] AND g.no <= v_high[i]
        ORDER BY g.no DESC LIMIT p_below - v_found;
        GET DIAGNOSTICS v_rows = ROW_COUNT;
        v_found := v_found + v_rows;
    END LOOP;
    v_found := 0;
    FOR i IN 1..cardinality(v_low) LOOP
        EXIT WHEN v_found >= p_above;
        RETURN QUERY
        SELECT g.id, g.no, g.seq, g.sender_id, g.content, g.media_url, g.media_type::text, g.type::text, g.reply_to_id, g.mentions,
               g.nonce, g.is_edited, g.is_deleted, g.is_pinned, g.rev, g.sent_at, g.edited_at
        FROM messages g
        WHERE g.thread_id = p_thread AND g.no > p_after AND g.no >= v_low[i] AND g.no <= v_high[i]
        ORDER BY g.no LIMIT p_above - v_found;
        GET DIAGNOSTICS v_rows = ROW_COUNT;
        v_found := v_found + v_rows;
    END LOOP;
END $$;

ALTER VIEW engine.log_rows OWNER TO haus_engine;
ALTER VIEW engine.member_threads OWNER TO haus_engine;
DO $$
DECLARE
    f regprocedure;
BEGIN
    FOR f IN SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'engine' LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f);
        IF f::text NOT LIKE 'engine.ensure_message_partitions%' THEN
            EXECUTE format('ALTER FUNCTION %s OWNER TO haus_engine', f);
        END IF;
    END LOOP;
END $$;
GRANT EXECUTE ON FUNCTION
    engine.log_pages, engine.user_pages, engine.heads, engine.poll, engine.people_threads, engine.member_rows,
    engine.thread_list, engine.members, engine.visible_updates, engine.history
TO haus_app;
