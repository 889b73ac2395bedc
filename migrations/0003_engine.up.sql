-- The engine's doors of change: SECURITY DEFINER functions with a fixed search_path, owned by haus_engine. They take the
-- actor as an argument and check it themselves; the application role may only EXECUTE them.

CREATE SCHEMA engine;
GRANT USAGE ON SCHEMA engine TO haus_app;
GRANT USAGE, CREATE ON SCHEMA engine TO haus_engine;

-- The lowest UUIDv7 of a millisecond.
CREATE FUNCTION engine.uuid_of_ms(ms bigint) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (lpad(to_hex(ms), 12, '0') || '00000000000000000000')::uuid;

-- Partitions of messages for the years asked for; returns how many were made.
CREATE FUNCTION engine.ensure_message_partitions(first_year integer, last_year integer) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    made integer := 0;
    from_id uuid;
    to_id uuid;
BEGIN
    FOR y IN first_year..last_year LOOP
        CONTINUE WHEN to_regclass('messages_' || y) IS NOT NULL;
        from_id := engine.uuid_of_ms((extract(epoch FROM make_timestamptz(y, 1, 1, 0, 0, 0, 'UTC')) * 1000)::bigint);
        to_id := engine.uuid_of_ms((extract(epoch FROM make_timestamptz(y + 1, 1, 1, 0, 0, 0, 'UTC')) * 1000)::bigint);
        EXECUTE format('CREATE TABLE messages_%s (LIKE messages INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', y);
        EXECUTE format('ALTER TABLE messages ATTACH PARTITION messages_%s FOR VALUES FROM (%L) TO (%L)', y, from_id, to_id);
        made := made + 1;
    END LOOP;
    RETURN made;
END $$;
SELECT engine.ensure_message_partitions(2024, extract(year FROM now())::integer + 3);

-- Whether a profile may see position p_seq of a thread: one of its stays covers it, or the thread shows its past to
-- newcomers and a stay is still open.
CREATE FUNCTION engine.may_see(p_thread uuid, p_profile uuid, p_seq bigint) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT EXISTS (
        SELECT FROM thread_spans s JOIN threads t ON t.id = s.thread_id
        WHERE s.thread_id = p_thread AND s.profile_id = p_profile
          AND (s.join_seq <= p_seq OR t.history_for_newcomers)
          AND (s.leave_seq IS NULL OR p_seq <= s.leave_seq))
$$;

-- The door of sends. Arrays run parallel, one element a send; no (thread, actor, nonce) twice in a call.
-- p_refuse: a code to answer where the nonce is new (the node's rate limit), else NULL. p_at: times for seeding, else NULL.
-- p_new: the nonces are expected to be new, so they are not looked up where nothing else needs judging: the unique index
-- refuses the whole call where one is not (unique_violation), and the caller repeats it with p_new false.
-- Step 1 locks; the statement after it has a snapshot of its own, so nonces and kicks committed while it waited count.
-- Step 2, nearly always: every row is plain (a member who may write, no reply, no mention) and is written. Where one is
-- not, nothing is, and step 3 judges each row by itself. Step 2 takes a fifth to a quarter less time than step 3 (4 to 128 rows, two connections).
CREATE FUNCTION engine.append_messages(
    p_thread uuid[], p_actor uuid[], p_nonce uuid[], p_mac bytea[], p_content text[], p_media_url text[],
    p_media_type text[], p_reply uuid[], p_mentions text[], p_rand uuid[], p_refuse text[], p_at timestamptz[], p_new boolean)
RETURNS TABLE (ord integer, code text, seq bigint, no bigint, message_id uuid, sent_at timestamptz, wait_ms integer)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = public, pg_temp SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_bitmapscan = off SET enable_material = off SET jit = off SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    v_ms bigint;
    v_now timestamptz;
BEGIN
    PERFORM 1 FROM threads t WHERE t.id = ANY (p_thread) ORDER BY t.id FOR NO KEY UPDATE;
    v_now := clock_timestamp();
    v_ms := floor(extract(epoch FROM v_now) * 1000);
    IF p_new AND p_at IS NULL AND num_nonnulls(VARIADIC p_reply) = 0 AND num_nonnulls(VARIADIC p_mentions) = 0
       AND num_nonnulls(VARIADIC p_refuse) = 0 THEN
        RETURN QUERY
        WITH plain AS MATERIALIZED (
            SELECT x.*, t.seq, t.no, greatest(v_ms, t.last_ms) AS ms, count(*) OVER () AS rows
            FROM unnest(p_thread, p_actor, p_nonce, p_mac, p_content, p_media_url, p_media_type, p_rand)
                WITH ORDINALITY AS x (thread, actor, nonce, mac, content, media_url, media_type, rand, ord)
            CROSS JOIN LATERAL (SELECT t.seq, t.no, t.last_ms, t.type FROM threads t
                WHERE t.id = x.thread AND NOT t.is_archived AND t.slow_mode_s = 0 LIMIT 1) t
            CROSS JOIN LATERAL (SELECT m.role FROM thread_members m
                WHERE m.thread_id = x.thread AND m.profile_id = x.actor AND m.left_at IS NULL LIMIT 1) m
            CROSS JOIN LATERAL (SELECT FROM profiles p WHERE p.id = x.actor AND p.status IN ('ACTIVE', 'PENDING') LIMIT 1) p
            WHERE t.type <> 'ANNOUNCE' OR m.role <> 'MEMBER'
        ), numbered AS MATERIALIZED (
            SELECT n.*, n.seq + n.k AS new_seq, n.no + n.k AS new_no, to_timestamp(n.ms / 1000.0) AS new_at,
                   (lpad(to_hex(n.ms), 12, '0') || substr(n.rand::text, 14))::uuid AS new_id
            FROM (SELECT g.*, row_number() OVER (PARTITION BY g.thread ORDER BY g.ord) AS k
                  FROM plain g WHERE g.rows = cardinality(p_thread)) n
        ), bump AS (
            UPDATE threads t SET seq = c.seq, no = c.no, last_ms = c.ms, last_message_at = to_timestamp(c.ms / 1000.0)
            FROM (SELECT n.thread, max(n.new_seq) AS seq, max(n.new_no) AS no, max(n.ms) AS ms FROM numbered n GROUP BY n.thread) c
            WHERE t.id = c.thread
        ), log AS (
            INSERT INTO thread_updates (thread_id, seq, kind, actor_id, message_id, no, nonce, body_mac, at)
            SELECT n.thread, n.new_seq, 1, n.actor, n.new_id, n.new_no, n.nonce, n.mac, n.new_at FROM numbered n
        ), body AS (
            INSERT INTO messages (id, thread_id, sender_id, no, seq, content, media_url, media_type, type, nonce, sent_at)
            SELECT n.new_id, n.thread, n.actor, n.new_no, n.new_seq, n.content, n.media_url, n.media_type::media_type,
                   CASE WHEN n.media_url IS NULL THEN 'TEXT' ELSE 'MEDIA' END::message_type, n.nonce, n.new_at
            FROM numbered n
        ), mark AS (
            UPDATE thread_members m SET mark_no = c.no, receipt_no = greatest(m.receipt_no, c.no), last_read_at = v_now,
                   last_read_message_id = c.id, last_sent_at = v_now
            FROM (SELECT DISTINCT ON (n.thread, n.actor) n.thread, n.actor, n.new_no AS no, n.new_id AS id FROM numbered n
                  ORDER BY n.thread, n.actor, n.new_no DESC) c
            WHERE m.thread_id = c.thread AND m.profile_id = c.actor
        )
        SELECT n.ord::integer, 'ok', n.new_seq, n.new_no, n.new_id, n.new_at, NULL::integer FROM numbered n;
        IF FOUND THEN
            RETURN;
        END IF;
    END IF;
    RETURN QUERY
    WITH input AS MATERIALIZED (
        SELECT x.* FROM unnest(p_thread, p_actor, p_nonce, p_mac, p_content, p_media_url, p_media_type, p_reply,
                               p_mentions, p_rand, p_refuse, p_at)
            WITH ORDINALITY AS x (thread, actor, nonce, mac, content, media_url, media_type, reply, mentions, rand, refuse, at, ord)
    ), judged AS MATERIALIZED (
        SELECT i.*, t.seq AS t_seq, t.no AS t_no, t.last_ms, t.slow_mode_s,
               u.seq AS u_seq, u.no AS u_no, u.message_id AS u_message, u.at AS u_at,
               CASE
                   WHEN u.seq IS NOT NULL AND u.body_mac = i.mac THEN 'dup'
                   WHEN u.seq IS NOT NULL THEN 'nonce_conflict'
                   WHEN m.profile_id IS NULL OR m.left_at IS NOT NULL THEN 'not_found'
                   WHEN p.status NOT IN ('ACTIVE', 'PENDING') THEN 'forbidden'
                   WHEN i.refuse IS NOT NULL THEN i.refuse
                   WHEN t.is_archived THEN 'thread_archived'
                   WHEN t.type = 'ANNOUNCE' AND m.role = 'MEMBER' THEN 'read_only'
                   WHEN t.slow_mode_s > 0 AND m.role = 'MEMBER' AND (
                        m.last_sent_at > v_now - make_interval(secs => t.slow_mode_s)
                        OR row_number() OVER (PARTITION BY i.thread, i.actor ORDER BY i.ord) > 1) THEN 'slow_mode'
                   WHEN i.reply IS NOT NULL AND NOT EXISTS (
                        SELECT FROM messages r WHERE r.id = i.reply AND r.thread_id = i.thread
                          AND engine.may_see(i.thread, i.actor, r.seq)) THEN 'invalid_reply'
                   WHEN i.mentions IS NOT NULL AND EXISTS (
                        SELECT FROM unnest(i.mentions::uuid[]) w (id) WHERE NOT EXISTS (
                            SELECT FROM thread_members o
                            WHERE o.thread_id = i.thread AND o.profile_id = w.id AND o.left_at IS NULL)) THEN 'invalid_mention'
                   ELSE 'ok'
               END AS verdict,
               CASE WHEN t.slow_mode_s > 0
                    THEN greatest(0, ceil(extract(epoch FROM m.last_sent_at + make_interval(secs => t.slow_mode_s) - v_now) * 1000))::integer
               END AS slow_wait_ms
        FROM input i
        -- LATERAL with LIMIT: looked up row by row through an index whatever the statistics say. As plain joins they became one
        -- scan of the whole log, joined to each row, wherever the tables were analysed while empty (10,000 rows/s fell to 500).
        LEFT JOIN LATERAL (SELECT t.* FROM threads t WHERE t.id = i.thread LIMIT 1) t ON true
        LEFT JOIN LATERAL (SELECT u.* FROM thread_updates u WHERE u.thread_id = i.thread AND u.actor_id = i.actor AND u.nonce = i.nonce LIMIT 1) u ON true
        LEFT JOIN LATERAL (SELECT m.* FROM thread_members m WHERE m.thread_id = i.thread AND m.profile_id = i.actor LIMIT 1) m ON true
        LEFT JOIN LATERAL (SELECT p.* FROM profiles p WHERE p.id = i.actor LIMIT 1) p ON true
    ), numbered AS MATERIALIZED (
        SELECT j.*, j.t_seq + k.k AS new_seq, j.t_no + k.k AS new_no, ms.ms,
               (lpad(to_hex(ms.ms), 12, '0') || substr(j.rand::text, 14))::uuid AS new_id,
               to_timestamp(ms.ms / 1000.0) AS new_at
        FROM (SELECT j.*, row_number() OVER (PARTITION BY j.thread ORDER BY j.ord) AS k FROM judged j WHERE j.verdict = 'ok') j
        CROSS JOIN LATERAL (SELECT j.k) k (k)
        CROSS JOIN LATERAL (
            SELECT greatest(floor(extract(epoch FROM coalesce(j.at, v_now)) * 1000)::bigint, j.last_ms)) ms (ms)
    ), bump AS (
        UPDATE threads t SET seq = c.seq, no = c.no, last_ms = c.ms, last_message_at = to_timestamp(c.ms / 1000.0)
        FROM (SELECT n.thread, max(n.new_seq) AS seq, max(n.new_no) AS no, max(n.ms) AS ms FROM numbered n GROUP BY n.thread) c
        WHERE t.id = c.thread
    ), log AS (
        INSERT INTO thread_updates (thread_id, seq, kind, actor_id, message_id, no, nonce, body_mac, at)
        SELECT n.thread, n.new_seq, 1, n.actor, n.new_id, n.new_no, n.nonce, n.mac, n.new_at FROM numbered n
    ), body AS (
        INSERT INTO messages (id, thread_id, sender_id, no, seq, content, media_url, media_type, type, reply_to_id, mentions, nonce, sent_at)
        SELECT n.new_id, n.thread, n.actor, n.new_no, n.new_seq, n.content, n.media_url, n.media_type::media_type,
               CASE WHEN n.media_url IS NULL THEN 'TEXT' ELSE 'MEDIA' END::message_type, n.reply, n.mentions::uuid[], n.nonce, n.new_at
        FROM numbered n
    ), mention AS (
        INSERT INTO message_mentions (thread_id, profile_id, no)
        SELECT DISTINCT n.thread, w.id, n.new_no FROM numbered n, unnest(n.mentions::uuid[]) w (id) WHERE n.mentions IS NOT NULL
    ), mark AS (
        UPDATE thread_members m SET mark_no = c.no, receipt_no = greatest(m.receipt_no, c.no), last_read_at = v_now,
               last_read_message_id = c.id, last_sent_at = v_now
        FROM (SELECT DISTINCT ON (n.thread, n.actor) n.thread, n.actor, n.new_no AS no, n.new_id AS id FROM numbered n
              ORDER BY n.thread, n.actor, n.new_no DESC) c
        WHERE m.thread_id = c.thread AND m.profile_id = c.actor
    )
    SELECT n.ord::integer, 'ok', n.new_seq, n.new_no, n.new_id, n.new_at, NULL::integer FROM numbered n
    UNION ALL
    SELECT j.ord::integer, j.verdict, j.u_seq, j.u_no, j.u_message, j.u_at, j.slow_wait_ms FROM judged j WHERE j.verdict <> 'ok';
END $$;

-- Next seq of user streams, one each, locked in the order of profiles; appends the same kind with data for each.
CREATE FUNCTION engine.append_user_updates(p_profiles uuid[], p_kind smallint, p_data jsonb)
RETURNS TABLE (profile_id uuid, seq bigint, at timestamptz)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH bumped AS (
        INSERT INTO user_streams AS s (profile_id, seq)
        SELECT w.id, 1 FROM (SELECT DISTINCT unnest(p_profiles) AS id ORDER BY 1) w
        ON CONFLICT (profile_id) DO UPDATE SET seq = s.seq + 1
        RETURNING s.profile_id, s.seq
    ), logged AS (
        INSERT INTO user_updates (profile_id, seq, kind, at, data)
        SELECT b.profile_id, b.seq, p_kind, clock_timestamp(), p_data FROM bumped b
        RETURNING profile_id, seq, at
    )
    SELECT l.profile_id, l.seq, l.at FROM logged l
$$;

-- What a change of membership did: one row a log row (stream 'T') and a user-stream row (stream 'U').
CREATE TYPE engine.change_row AS (code text, stream text, profile_id uuid, seq bigint, at timestamptz, kind smallint, data jsonb);

-- Appends one row to a thread whose row the caller has locked; returns it as a change.
CREATE FUNCTION engine.append_update(p_thread uuid, p_actor uuid, p_kind smallint, p_data jsonb) RETURNS engine.change_row
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_row engine.change_row := ROW('ok', 'T', NULL, NULL, clock_timestamp(), p_kind, p_data);
BEGIN
    UPDATE threads SET seq = seq + 1 WHERE id = p_thread RETURNING seq INTO v_row.seq;
    INSERT INTO thread_updates (thread_id, seq, kind, actor_id, at, data)
    VALUES (p_thread, v_row.seq, p_kind, p_actor, v_row.at, p_data);
    RETURN v_row;
END $$;

-- Lets profiles in, at most 500 an update: log rows, spans, member rows, thread.added. The thread's row is locked.
CREATE FUNCTION engine.let_in(p_thread uuid, p_actor uuid, p_profiles uuid[], p_admin uuid) RETURNS SETOF engine.change_row
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_chunk uuid[];
    v_no bigint;
    v_joined engine.change_row;
    v_data jsonb;
BEGIN
    SELECT t.no INTO v_no FROM threads t WHERE t.id = p_thread;
    FOR i IN 0..(cardinality(p_profiles) - 1) / 500 LOOP
        v_chunk := p_profiles[i * 500 + 1:(i + 1) * 500];
        v_data := jsonb_build_object('profileIds', to_jsonb(v_chunk), 'byId', p_actor);
        v_joined := engine.append_update(p_thread, p_actor, 8::smallint, v_data);
        INSERT INTO thread_spans (thread_id, profile_id, join_seq, join_no)
        SELECT p_thread, w.id, v_joined.seq, v_no + 1 FROM unnest(v_chunk) w (id);
        INSERT INTO thread_members AS m (thread_id, profile_id, role, join_seq, join_no, mark_no, receipt_no)
        SELECT p_thread, w.id, CASE WHEN w.id = p_admin THEN 'ADMIN' ELSE 'MEMBER' END::thread_role, v_joined.seq, v_no + 1, v_no, v_no
        FROM unnest(v_chunk) w (id)
        ON CONFLICT (thread_id, profile_id) DO UPDATE SET role = excluded.role, left_at = NULL, joined_at = clock_timestamp(),
            join_seq = excluded.join_seq, join_no = excluded.join_no, mark_no = excluded.mark_no,
            receipt_no = greatest(m.receipt_no, excluded.receipt_no), mark_rev = m.mark_rev + 1;
        UPDATE threads t SET member_count = t.member_count + cardinality(v_chunk) WHERE t.id = p_thread;
        RETURN NEXT v_joined;
        v_data := jsonb_build_object('threadId', p_thread, 'seq', v_joined.seq);
        RETURN QUERY SELECT 'ok', 'U', a.profile_id, a.seq, a.at, 32::smallint, v_data
                     FROM engine.append_user_updates(v_chunk, 32::smallint, v_data) a;
    END LOOP;
END $$;

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

-- The actor's standing in a thread whose row is locked here: NULL code when it may act with at least p_least.
CREATE FUNCTION engine.lock_for(p_thread uuid, p_actor uuid, p_least thread_role) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_thread threads%ROWTYPE;
    v_role thread_role;
    v_status user_status;
BEGIN
    SELECT * INTO v_thread FROM threads WHERE id = p_thread FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN 'not_found';
    END IF;
    SELECT m.role, p.status INTO v_role, v_status FROM thread_members m JOIN profiles p ON p.id = m.profile_id
    WHERE m.thread_id = p_thread AND m.profile_id = p_actor AND m.left_at IS NULL;
    IF NOT FOUND THEN
        RETURN 'not_found';
    ELSIF v_status NOT IN ('ACTIVE', 'PENDING') OR v_role < p_least THEN
        RETURN 'forbidden';
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION engine.refused(p_code text) RETURNS engine.change_row LANGUAGE sql IMMUTABLE AS $$
    SELECT ROW(p_code, NULL, NULL, NULL, NULL, NULL, NULL)::engine.change_row
$$;

-- Adds members to a GROUP or ANNOUNCE thread (thread ADMINs). Those already in are passed over.
CREATE FUNCTION engine.add_members(p_thread uuid, p_actor uuid, p_profiles uuid[], p_most integer) RETURNS SETOF engine.change_row
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_code text := engine.lock_for(p_thread, p_actor, 'ADMIN');
    v_new uuid[];
    v_thread threads%ROWTYPE;
BEGIN
    SELECT * INTO v_thread FROM threads WHERE id = p_thread;
    IF v_code IS NULL THEN
        v_code := CASE
            WHEN v_thread.type IN ('DIRECT', 'HOUSE') THEN 'forbidden'
            WHEN v_thread.is_archived THEN 'thread_archived'
            WHEN EXISTS (SELECT FROM unnest(p_profiles) w (id) WHERE NOT EXISTS (
                SELECT FROM profiles p WHERE p.id = w.id AND p.status IN ('ACTIVE', 'PENDING'))) THEN 'invalid'
        END;
    END IF;
    IF v_code IS NULL THEN
        SELECT array_agg(DISTINCT w.id) INTO v_new FROM unnest(p_profiles) w (id)
        WHERE NOT EXISTS (SELECT FROM thread_members m WHERE m.thread_id = p_thread AND m.profile_id = w.id AND m.left_at IS NULL);
        IF v_thread.member_count + coalesce(cardinality(v_new), 0) > p_most THEN
            v_code := 'too_large';
        END IF;
    END IF;
    IF v_code IS NOT NULL THEN
        RETURN NEXT engine.refused(v_code);
    ELSIF v_new IS NULL THEN
        RETURN NEXT engine.refused('noop');
    ELSE
        RETURN QUERY SELECT * FROM engine.let_in(p_thread, p_actor, v_new, NULL);
    END IF;
END $$;

-- Ends a stay: oneself (leave), or another (ADMINs). Where the last ADMIN goes, the member of highest role and longest
-- standing becomes ADMIN first, so that no thread with members is left without one.
CREATE FUNCTION engine.remove_member(p_thread uuid, p_actor uuid, p_profile uuid) RETURNS SETOF engine.change_row
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_code text := engine.lock_for(p_thread, p_actor, CASE WHEN p_actor = p_profile THEN 'MEMBER' ELSE 'ADMIN' END::thread_role);
    v_thread threads%ROWTYPE;
    v_role thread_role;
    v_heir uuid;
    v_reason text := CASE WHEN p_actor = p_profile THEN 'left' ELSE 'removed' END;
    v_left engine.change_row;
    v_data jsonb;
BEGIN
    SELECT * INTO v_thread FROM threads WHERE id = p_thread;
    IF v_code IS NULL AND v_thread.type IN ('DIRECT', 'HOUSE') THEN
        v_code := 'forbidden';
    END IF;
    SELECT m.role INTO v_role FROM thread_members m
    WHERE m.thread_id = p_thread AND m.profile_id = p_profile AND m.left_at IS NULL;
    IF v_code IS NULL AND NOT FOUND THEN
        v_code := 'not_found';
    END IF;
    IF v_code IS NOT NULL THEN
        RETURN NEXT engine.refused(v_code);
        RETURN;
    END IF;
    IF v_role = 'ADMIN' AND NOT EXISTS (
        SELECT FROM thread_members m WHERE m.thread_id = p_thread AND m.left_at IS NULL AND m.role = 'ADMIN' AND m.profile_id <> p_profile) THEN
        SELECT m.profile_id INTO v_heir FROM thread_members m
        WHERE m.thread_id = p_thread AND m.left_at IS NULL AND m.profile_id <> p_profile
        ORDER BY m.role DESC, m.joined_at, m.profile_id LIMIT 1;
        IF FOUND THEN
            RETURN QUERY SELECT * FROM engine.apply_member_change(p_thread, p_actor, v_heir, 'ADMIN'::thread_role, NULL);
        END IF;
    END IF;
    v_data := jsonb_build_object('profileIds', jsonb_build_array(p_profile), 'byId', p_actor, 'reason', v_reason);
    v_left := engine.append_update(p_thread, p_actor, 9::smallint, v_data);
    UPDATE thread_spans SET leave_seq = v_left.seq, leave_no = v_thread.no
    WHERE thread_id = p_thread AND profile_id = p_profile AND leave_seq IS NULL;
    UPDATE thread_members SET left_at = clock_timestamp(), role = 'MEMBER' WHERE thread_id = p_thread AND profile_id = p_profile;
    UPDATE threads SET member_count = member_count - 1 WHERE id = p_thread;
    RETURN NEXT v_left;
    v_data := jsonb_build_object('threadId', p_thread, 'seq', v_left.seq, 'reason', v_reason);
    RETURN QUERY SELECT 'ok', 'U', a.profile_id, a.seq, a.at, 33::smallint, v_data
                 FROM engine.append_user_updates(ARRAY[p_profile], 33::smallint, v_data) a;
END $$;

-- Writes role and nickname of a member whose thread is locked; nickname '' clears it, NULL leaves it.
CREATE FUNCTION engine.apply_member_change(p_thread uuid, p_actor uuid, p_profile uuid, p_role thread_role, p_nickname text)
RETURNS SETOF engine.change_row
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_row thread_members%ROWTYPE;
    v_data jsonb;
BEGIN
    UPDATE thread_members m SET role = coalesce(p_role, m.role),
           nickname = CASE WHEN p_nickname IS NULL THEN m.nickname ELSE nullif(p_nickname, '') END
    WHERE m.thread_id = p_thread AND m.profile_id = p_profile AND m.left_at IS NULL RETURNING m.* INTO v_row;
    IF NOT FOUND THEN
        RETURN NEXT engine.refused('not_found');
        RETURN;
    END IF;
    v_data := jsonb_build_object('profileId', p_profile, 'role', v_row.role, 'nickname', v_row.nickname, 'byId', p_actor);
    RETURN NEXT engine.append_update(p_thread, p_actor, 10::smallint, v_data);
END $$;

-- Changes role (ADMINs, not the own one) or nickname (oneself or ADMINs) of a member.
CREATE FUNCTION engine.change_member(p_thread uuid, p_actor uuid, p_profile uuid, p_role text, p_nickname text)
RETURNS SETOF engine.change_row
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_code text := engine.lock_for(p_thread, p_actor,
        CASE WHEN p_role IS NULL AND p_actor = p_profile THEN 'MEMBER' ELSE 'ADMIN' END::thread_role);
BEGIN
    IF v_code IS NULL AND p_role IS NOT NULL AND (p_actor = p_profile
        OR EXISTS (SELECT FROM threads t WHERE t.id = p_thread AND t.type = 'DIRECT')) THEN
        v_code := 'forbidden';
    END IF;
    IF v_code IS NULL AND EXISTS (
        SELECT FROM thread_members m WHERE m.thread_id = p_thread AND m.profile_id = p_profile AND m.left_at IS NULL
           AND m.role = coalesce(p_role::thread_role, m.role)
           AND (p_nickname IS NULL OR coalesce(m.nickname, '') = p_nickname)) THEN
        v_code := 'noop';
    END IF;
    IF v_code IS NOT NULL THEN
        RETURN NEXT engine.refused(v_code);
    ELSE
        RETURN QUERY SELECT * FROM engine.apply_member_change(p_thread, p_actor, p_profile, p_role::thread_role, p_nickname);
    END IF;
END $$;

-- Changes name, description, avatar, isArchived, isMuted, slowModeS, historyForNewcomers: the keys present in p_patch.
CREATE FUNCTION engine.change_thread(p_thread uuid, p_actor uuid, p_patch jsonb) RETURNS SETOF engine.change_row
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_code text := engine.lock_for(p_thread, p_actor, 'ADMIN');
    v_old threads%ROWTYPE;
    v_new threads%ROWTYPE;
    v_changed jsonb;
    v_data jsonb;
BEGIN
    SELECT * INTO v_old FROM threads WHERE id = p_thread;
    IF v_code IS NULL AND v_old.type = 'DIRECT' THEN
        v_code := 'forbidden';
    END IF;
    IF v_code IS NOT NULL THEN
        RETURN NEXT engine.refused(v_code);
        RETURN;
    END IF;
    UPDATE threads t SET
        name = CASE WHEN p_patch ? 'name' THEN p_patch ->> 'name' ELSE t.name END,
        description = CASE WHEN p_patch ? 'description' THEN p_patch ->> 'description' ELSE t.description END,
        avatar = CASE WHEN p_patch ? 'avatar' THEN p_patch ->> 'avatar' ELSE t.avatar END,
        is_archived = CASE WHEN p_patch ? 'isArchived' THEN (p_patch ->> 'isArchived')::boolean ELSE t.is_archived END,
        is_muted = CASE WHEN p_patch ? 'isMuted' THEN (p_patch ->> 'isMuted')::boolean ELSE t.is_muted END,
        slow_mode_s = CASE WHEN p_patch ? 'slowModeS' THEN (p_patch ->> 'slowModeS')::integer ELSE t.slow_mode_s END,
        history_for_newcomers = CASE WHEN p_patch ? 'historyForNewcomers' THEN (p_patch ->> 'historyForNewcomers')::boolean
                                     ELSE t.history_for_newcomers END
    WHERE t.id = p_thread RETURNING t.* INTO v_new;
    SELECT coalesce(jsonb_object_agg(n.key, n.value), '{}'::jsonb) INTO v_changed
    FROM jsonb_each(jsonb_build_object('name', v_new.name, 'description', v_new.description, 'avatar', v_new.avatar,
            'isArchived', v_new.is_archived, 'isMuted', v_new.is_muted, 'slowModeS', v_new.slow_mode_s,
            'historyForNewcomers', v_new.history_for_newcomers)) n
    JOIN jsonb_each(jsonb_build_object('name', v_old.name, 'description', v_old.description, 'avatar', v_old.avatar,
            'isArchived', v_old.is_archived, 'isMuted', v_old.is_muted, 'slowModeS', v_old.slow_mode_s,
            'historyForNewcomers', v_old.history_for_newcomers)) o ON o.key = n.key AND o.value IS DISTINCT FROM n.value;
    IF v_changed = '{}'::jsonb THEN
        RETURN NEXT engine.refused('noop');
        RETURN;
    END IF;
    v_data := jsonb_build_object('thread', v_changed, 'byId', p_actor);
    RETURN NEXT engine.append_update(p_thread, p_actor, 11::smallint, v_data);
END $$;

-- Moves the own read mark forward, never back; a revision below the stored one changes nothing.
CREATE FUNCTION engine.mark_read(p_thread uuid, p_profile uuid, p_no bigint, p_rev integer)
RETURNS TABLE (code text, last_read_no bigint, read_rev integer, thread_no bigint, mentions bigint, muted_until timestamptz, user_seq bigint, at timestamptz)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_no bigint;
    v_row thread_members%ROWTYPE;
    v_status user_status;
    v_mentions bigint;
    v_moved boolean;
    v_seq bigint;
    v_at timestamptz;
BEGIN
    SELECT t.no INTO v_no FROM threads t WHERE t.id = p_thread;
    SELECT m.* INTO v_row FROM thread_members m
    WHERE m.thread_id = p_thread AND m.profile_id = p_profile AND m.left_at IS NULL FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN QUERY SELECT 'not_found', 0::bigint, 0, 0::bigint, 0::bigint, NULL::timestamptz, NULL::bigint, NULL::timestamptz;
        RETURN;
    END IF;
    SELECT p.status INTO v_status FROM profiles p WHERE p.id = p_profile;
    IF v_status NOT IN ('ACTIVE', 'PENDING') THEN
        RETURN QUERY SELECT 'forbidden', 0::bigint, 0, 0::bigint, 0::bigint, NULL::timestamptz, NULL::bigint, NULL::timestamptz;
        RETURN;
    END IF;
    v_moved := least(p_no, v_no) > v_row.mark_no AND coalesce(p_rev, v_row.mark_rev) >= v_row.mark_rev;
    IF v_moved THEN
        UPDATE thread_members m SET mark_no = least(p_no, v_no), receipt_no = greatest(m.receipt_no, least(p_no, v_no)),
               last_read_at = clock_timestamp(),
               last_read_message_id = (SELECT g.id FROM messages g WHERE g.thread_id = p_thread AND g.no = least(p_no, v_no))
        WHERE m.id = v_row.id RETURNING m.* INTO v_row;
    END IF;
    SELECT count(*) INTO v_mentions FROM message_mentions w
    WHERE w.thread_id = p_thread AND w.profile_id = p_profile AND w.no > v_row.mark_no AND w.no <= v_no;
    IF v_moved THEN
        SELECT a.seq, a.at INTO v_seq, v_at
        FROM engine.append_user_updates(ARRAY[p_profile], 34::smallint, jsonb_build_object('threadId', p_thread)) a;
    END IF;
    RETURN QUERY SELECT 'ok', v_row.mark_no, v_row.mark_rev, v_no, v_mentions, v_row.muted_until, v_seq, v_at;
END $$;

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
    engine.append_messages, engine.create_thread, engine.add_members, engine.remove_member, engine.change_member,
    engine.change_thread, engine.mark_read, engine.may_see
TO haus_app;
