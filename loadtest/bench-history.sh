#!/usr/bin/env bash
# `make bench-history`: a page of 50 messages at any depth of one long thread, timed inside the database. The messages lie in
# the partitions of three years; the thread has two members. Milliseconds a page, near the newest and near the oldest
# message and at random, through the function the node calls.
#
#   MESSAGES   of the thread (10,000,000: about 6 GB and several minutes to write)
#   PAGES      read at each depth (2,000)
set -euo pipefail
cd "$(dirname "$0")/.."
. loadtest/private.sh

MESSAGES=${MESSAGES:-10000000}
PAGES=${PAGES:-2000}
CHUNK=250000
"${CARGO:-cargo}" build --release --features tools --bin haus
HAUS=${CARGO_TARGET_DIR:-target}/release/haus
private_begin
start_postgres
"$PG_BIN/createdb" -h 127.0.0.1 -p "$PG_PORT" -U haus_owner haus
export DATABASE_URL=postgres://haus_node:node@127.0.0.1:$PG_PORT/haus HAUS_DATA_DIR=$PRIVATE/data
HAUS_SECRET_KEY=$(head -c 32 /dev/urandom | base64 -w 0)
export HAUS_SECRET_KEY
DATABASE_OWNER_URL=postgres://haus_owner@127.0.0.1:$PG_PORT/haus "$HAUS" migrate >/dev/null
"$HAUS" seed --people 2 --threads 1 --members 2 --out "$PRIVATE/people.jsonl" >/dev/null 2>&1
sql() { "$PG_BIN/psql" -q -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$PG_PORT" -U haus_owner -d haus "$@"; }

# Evenly from 2024 on, so that the last lies in 2026. Ids are of version 7: their first 48 bits are the millisecond.
say "writing $MESSAGES messages"
for ((from = 1; from <= MESSAGES; from += CHUNK)); do
  sql -c "INSERT INTO messages (id, thread_id, sender_id, no, seq, content, nonce, sent_at)
    SELECT (lpad(to_hex(ms), 12, '0') || '7' || substr(md5(n::text), 1, 3) || 'a' || substr(md5(n::text), 4, 15))::uuid,
           m.thread_id, m.profile_id, n, n + 1, repeat('x', 200), gen_random_uuid(), to_timestamp(ms / 1000.0)
    FROM (SELECT thread_id, profile_id FROM thread_members LIMIT 1) m,
         generate_series($from, least($from + $CHUNK - 1, $MESSAGES)) n,
         LATERAL (SELECT 1704067200000 + (n * (85000000000 / $MESSAGES::numeric))::bigint) x (ms)"
done
sql -c "UPDATE threads SET no = $MESSAGES, seq = $MESSAGES + 1" -c 'VACUUM ANALYZE messages' -c CHECKPOINT

sql -At <<SQL
CREATE FUNCTION pg_temp.page_ms(low bigint, high bigint) RETURNS numeric LANGUAGE plpgsql AS \$\$
DECLARE
    v_thread uuid := (SELECT id FROM threads LIMIT 1);
    v_member uuid := (SELECT profile_id FROM thread_members LIMIT 1);
    v_rows bigint;
    v_began timestamptz;
BEGIN
    FOR round IN 1..2 LOOP  -- the first one warms the cache
        PERFORM setseed(0.5);
        v_began := clock_timestamp();
        FOR n IN 1..$PAGES LOOP
            SELECT count(*) INTO v_rows FROM engine.history(v_member, v_thread, low + (random() * (high - low))::bigint, 50, 0, 0, 98304);
            IF v_rows <> 51 THEN
                RAISE EXCEPTION 'a page of % rows', v_rows;
            END IF;
        END LOOP;
    END LOOP;
    RETURN round((extract(epoch FROM clock_timestamp() - v_began) * 1000 / $PAGES)::numeric, 3);
END \$\$;
SELECT json_build_object('messages', $MESSAGES, 'newestMs', pg_temp.page_ms($MESSAGES * 99 / 100, $MESSAGES),
    'oldestMs', pg_temp.page_ms(52, $MESSAGES / 100), 'anywhereMs', pg_temp.page_ms(52, $MESSAGES), 'budgetMs', 0.3);
SQL
