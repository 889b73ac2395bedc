#!/usr/bin/env bash
# `make bench`: every budget that the load generator can measure, each with its floor in the same run, printed as one table.
#
#   REPS   runs of each row (5; with 1 the whole takes under six minutes)
#   ROWS   only these rows, such as ROWS="fanout-32 sends" (all)
#   OUT    where the reports go, one JSON line a run (target/bench.jsonl)
#   SCALE  percent of the sizes and times, for a quick look (100); figures of a smaller scale are no answer to a budget
#
# Postgres, Redis and nodes are private and end with the script. Nothing else should run on the machine.
set -euo pipefail
cd "$(dirname "$0")/.."
. loadtest/private.sh

REPS=${REPS:-5}
SCALE=${SCALE:-100}
ROWS=${ROWS:-"fanout-32 fanout-4 delivery-100k rooms-64 paced sends hot connect idle cross-node resume"}
TARGET=${CARGO_TARGET_DIR:-target}
OUT=${OUT:-$TARGET/bench.jsonl}

"${CARGO:-cargo}" build --release --features tools --bin haus --bin haus-load
HAUS=$TARGET/release/haus
LOAD=$TARGET/release/haus-load

scaled() { echo $(($1 * SCALE / 100 > 0 ? $1 * SCALE / 100 : 1)); }
wants() { [[ " $ROWS " == *" $1 "* ]]; }
wants_any() { local row; for row in "$@"; do if wants "$row"; then return 0; fi; done; return 1; }

private_begin
start_postgres
recycle_wal
# One key for all nodes and for the tokens of `haus seed`.
export HAUS_SECRET_KEY
HAUS_SECRET_KEY=$(head -c 32 /dev/urandom | base64 -w 0)
export HAUS_LIMITS=off HAUS_SLOW_CLOSE_MS=30000
mkdir -p "$(dirname "$OUT")"
: >"$OUT"

# database NAME PEOPLE THREADS MEMBERS: an own database with its people; sets URLS and TOKENS.
database() {
  local name=haus_$1
  "$PG_BIN/createdb" -h 127.0.0.1 -p "$PG_PORT" -U haus_owner "$name"
  URLS=(DATABASE_URL="postgres://haus_node:node@127.0.0.1:$PG_PORT/$name"
    DATABASE_OWNER_URL="postgres://haus_owner@127.0.0.1:$PG_PORT/$name")
  DATABASE=postgres://haus_owner@127.0.0.1:$PG_PORT/$name
  TOKENS=$PRIVATE/$1.jsonl
  env "${URLS[@]}" HAUS_DATA_DIR="$PRIVATE/data" "$HAUS" migrate >>"$PRIVATE/migrate.log" 2>&1 || die "migrate failed: $(tail -3 "$PRIVATE/migrate.log")"
  say "seeding $1: $2 people, $3 threads of $4"
  env "${URLS[@]}" HAUS_DATA_DIR="$PRIVATE/data" "$HAUS" seed --people "$2" --threads "$3" --members "$4" --out "$TOKENS" >>"$PRIVATE/seed.log" 2>&1 ||
    die "seed failed: $(tail -3 "$PRIVATE/seed.log")"
  "$PG_BIN/psql" -q -h 127.0.0.1 -p "$PG_PORT" -U haus_owner -d "$name" -c 'VACUUM ANALYZE' -c CHECKPOINT >/dev/null
}

# measure ROW ARGUMENTS…: one run of the generator; its last line is kept under the row's name.
measure() {
  local row=$1 last
  shift
  say "$row: haus-load $*"
  last=$("$LOAD" "$@" --json --pid "haus=$NODE_PID" "postgres=$PG_PID" | tail -1) || true
  case $last in
  *'"final":true'*) printf '{"row":"%s","report":%s}\n' "$row" "$last" >>"$OUT" ;;
  *)
    say "$row: no result"
    printf '{"row":"%s","report":{"clean":false}}\n' "$row" >>"$OUT"
    ;;
  esac
}

# node NAME [VAR=VALUE…]: a node on the present database; USED holds its pid for `release`.
node() {
  start_node "$1" "${URLS[@]}" "${@:2}"
}

release() { stop "$1"; }

repeat() { local n; for ((n = 0; n < REPS; n++)); do "$@"; done; }

SECONDS_EACH=$(scaled 5)
FLOOR=(--floor --floor-seconds 2)

if wants_any fanout-32 fanout-4 delivery-100k hot; then
  database fanout 1000 1 1000
  node fanout
  common=(--url "$NODE_URL" --tokens "$TOKENS" --seconds "$SECONDS_EACH")
  ! wants fanout-32 || repeat measure fanout-32 fanout "${common[@]}" --sockets 1000 --in-flight 32 "${FLOOR[@]}"
  ! wants fanout-4 || repeat measure fanout-4 fanout "${common[@]}" --sockets 1000 --in-flight 4 "${FLOOR[@]}"
  ! wants delivery-100k || repeat measure delivery-100k fanout "${common[@]}" --sockets 1000 --rate 100
  ! wants hot || repeat measure hot hot "${common[@]}" --sockets 64 --in-flight 1000 --floor --floor-db "$DATABASE" --floor-seconds 1
  release "$NODE_PID"
fi

if wants rooms-64; then
  database rooms 1000 100 10
  node rooms
  repeat measure rooms-64 rooms --url "$NODE_URL" --tokens "$TOKENS" --seconds "$SECONDS_EACH" --sockets 1000 --in-flight 64 "${FLOOR[@]}"
  release "$NODE_PID"
fi

if wants paced; then
  # Five threads of 1,000: 100 messages a second are 100,000 deliveries, each a write of its own.
  members=$(scaled 1000)
  database paced $((members * 5)) 5 "$members"
  node paced
  repeat measure paced rooms --url "$NODE_URL" --tokens "$TOKENS" --seconds "$SECONDS_EACH" --sockets $((members * 5)) --rate 100 "${FLOOR[@]}"
  release "$NODE_PID"
fi

if wants sends; then
  threads=$(scaled 2000)
  database sends $((threads * 2)) "$threads" 2
  node sends
  repeat measure sends sends --url "$NODE_URL" --tokens "$TOKENS" --seconds "$SECONDS_EACH" --sockets $((threads * 2)) --in-flight 400 \
    --floor --floor-db "$DATABASE" --floor-seconds 1
  release "$NODE_PID"
fi

if wants_any idle connect resume; then
  # 20 threads each: 3,000 threads of 100 for 15,000 people.
  sockets=$(scaled 15000)
  database idle "$sockets" "$(scaled 3000)" 100
  one_idle() {
    node "$1"
    measure "$1" "$1" --url "$NODE_URL" --tokens "$TOKENS" --sockets "$sockets" --seconds 3
    release "$NODE_PID"
  }
  ! wants connect || repeat one_idle connect
  ! wants idle || repeat one_idle idle
fi

if wants_any cross-node resume; then
  start_redis
  two_nodes() {
    node one REDIS_URL="redis://127.0.0.1:$REDIS_PORT"
    FIRST_URL=$NODE_URL FIRST_PID=$NODE_PID
    node two REDIS_URL="redis://127.0.0.1:$REDIS_PORT"
  }
  if wants resume; then
    one_resume() {
      two_nodes
      measure resume resume --url "$FIRST_URL" "$NODE_URL" --tokens "$TOKENS" --sockets "$sockets" --away-sends 1000 --connecting 512 --kill-pid "$FIRST_PID"
      release "$NODE_PID"
    }
    repeat one_resume
  fi
  if wants cross-node; then
    database cross 1000 10 100
    two_nodes
    repeat measure cross-node rooms --url "$FIRST_URL" "$NODE_URL" --tokens "$TOKENS" --seconds "$SECONDS_EACH" --sockets 1000 --rate 200
    release "$FIRST_PID"
    release "$NODE_PID"
  fi
fi

"$LOAD" table "$OUT"
