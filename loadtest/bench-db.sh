#!/usr/bin/env bash
# `make bench-db`: the database floor alone: the server's own call for sends, back to back with full batches, on a private
# Postgres with 2,000 threads of two. RUNS repeats it (5).
set -euo pipefail
cd "$(dirname "$0")/.."
. loadtest/private.sh

cargo build --release --features tools --bin haus --bin haus-load
HAUS=${CARGO_TARGET_DIR:-target}/release/haus
LOAD=${CARGO_TARGET_DIR:-target}/release/haus-load
private_begin
start_postgres
recycle_wal
"$PG_BIN/createdb" -h 127.0.0.1 -p "$PG_PORT" -U haus_owner haus
owner=postgres://haus_owner@127.0.0.1:$PG_PORT/haus
export DATABASE_URL=postgres://haus_node:node@127.0.0.1:$PG_PORT/haus HAUS_DATA_DIR=$PRIVATE/data
HAUS_SECRET_KEY=$(head -c 32 /dev/urandom | base64 -w 0)
export HAUS_SECRET_KEY
DATABASE_OWNER_URL=$owner "$HAUS" migrate >/dev/null
"$HAUS" seed --people 4000 --threads 2000 --members 2 --out "$PRIVATE/people.jsonl"
"$PG_BIN/psql" -q -h 127.0.0.1 -p "$PG_PORT" -U haus_owner -d haus -c 'VACUUM ANALYZE' -c CHECKPOINT
for ((run = 0; run < ${RUNS:-5}; run++)); do
  "$LOAD" sends --floor-db "$owner" --tokens "$PRIVATE/people.jsonl" --sockets 4000 --floor-seconds 3
done
