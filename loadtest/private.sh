# Private servers for measuring: a Postgres, a Redis and nodes on loopback with free ports, all gone when the script ends.
# Sourced by load.sh and bench.sh; holds no measurement. Needs bash, coreutils, and setpriv (util-linux) when run as root.

say() { printf '%s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# A folder every user may enter: Postgres never runs as root and must reach its own part of it.
private_begin() {
  PRIVATE=$(mktemp -d "${TMPDIR:-/tmp}/haus-measure.XXXXXX")
  chmod 755 "$PRIVATE"
  STARTED=()
  trap private_end EXIT
  trap 'exit 130' INT TERM
}

# Ends what was started, newest first, each by its own id; KEEP=1 keeps the folder.
private_end() {
  local at
  for ((at = ${#STARTED[@]} - 1; at >= 0; at--)); do
    stop "${STARTED[at]}"
  done
  [ "${KEEP:-0}" = 1 ] || rm -rf "$PRIVATE"
}

# stop PID: asks, waits up to 10 s, then insists.
stop() {
  local pid=$1 tries
  kill -TERM "$pid" 2>/dev/null || return 0
  for ((tries = 0; tries < 100; tries++)); do
    kill -0 "$pid" 2>/dev/null || return 0
    sleep 0.1
  done
  kill -KILL "$pid" 2>/dev/null || true
}

free_port() {
  local port tries
  for ((tries = 0; tries < 50; tries++)); do
    port=$((20000 + RANDOM % 12000))
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
  done
  die 'no free port found'
}

# wait_for WHAT SECONDS COMMAND…: repeats the command until it succeeds.
wait_for() {
  local what=$1 tries=$(($2 * 10))
  shift 2
  while ! "$@" >/dev/null 2>&1; do
    tries=$((tries - 1))
    [ $tries -gt 0 ] || die "waited too long for $what; see $PRIVATE"
    sleep 0.1
  done
}

# Runs a command as the user who owns the Postgres folder.
as_postgres() {
  if [ "$(id -u)" = 0 ]; then
    setpriv --reuid=postgres --regid=postgres --clear-groups -- "$@"
  else
    "$@"
  fi
}

# start_postgres: sets PG_PORT, PG_PID, PG_BIN. Durable settings are left as they are shipped.
start_postgres() {
  local dir
  PG_BIN=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -1)
  [ -x "$PG_BIN/postgres" ] || PG_BIN=$(dirname "$(readlink -f "$(command -v postgres || true)")")
  [ -x "$PG_BIN/postgres" ] || die 'no postgres found: install the package postgresql'
  dir=$PRIVATE/postgres
  PG_PORT=$(free_port)
  mkdir -p "$dir"
  [ "$(id -u)" != 0 ] || chown postgres:postgres "$dir"
  (cd "$dir" && as_postgres "$PG_BIN/initdb" -D "$dir/data" -U haus_owner --auth=trust -E UTF8 --locale=C --no-sync) >"$PRIVATE/initdb.log" 2>&1 ||
    die "initdb failed; see $PRIVATE/initdb.log (KEEP=1 keeps it)"
  (cd "$dir" && exec_as_postgres "$PG_BIN/postgres" -D "$dir/data" -p "$PG_PORT" -k "$dir" -c listen_addresses=127.0.0.1 \
    -c max_connections=200 -c shared_buffers=512MB -c max_wal_size=8GB -c min_wal_size=3GB -c checkpoint_timeout=30min) >"$PRIVATE/postgres.log" 2>&1 &
  # The subshell becomes the server, so this is its id.
  PG_PID=$!
  STARTED+=("$PG_PID")
  wait_for postgres 30 "$PG_BIN/pg_isready" -h 127.0.0.1 -p "$PG_PORT"
}

# Log files as a server has them that has run for a while: used ones are taken again. A new cluster creates and zeroes
# 16 MB each time, and commits wait for that.
recycle_wal() {
  "$PG_BIN/psql" -qAt -h 127.0.0.1 -p "$PG_PORT" -U haus_owner -d postgres -o /dev/null \
    -c "SELECT count(pg_logical_emit_message(false, 'haus', repeat('x', 1000000))) FROM generate_series(1, 2500)" -c CHECKPOINT
}

# Becomes the command, as the user who owns the Postgres folder.
exec_as_postgres() {
  if [ "$(id -u)" = 0 ]; then
    exec setpriv --reuid=postgres --regid=postgres --clear-groups -- "$@"
  fi
  exec "$@"
}

# start_redis: sets REDIS_PORT, REDIS_PID.
start_redis() {
  command -v redis-server >/dev/null || die 'no redis-server found: install the package redis-server'
  REDIS_PORT=$(free_port)
  redis-server --port "$REDIS_PORT" --bind 127.0.0.1 --save '' --appendonly no --dir "$PRIVATE" --daemonize no >"$PRIVATE/redis.log" 2>&1 &
  REDIS_PID=$!
  STARTED+=("$REDIS_PID")
  wait_for redis 10 bash -c "exec 3<>/dev/tcp/127.0.0.1/$REDIS_PORT"
}

# start_node NAME [VAR=VALUE…]: sets NODE_URL, NODE_PID from the one line a node prints when ready.
start_node() {
  local name=$1 out=$PRIVATE/$1.out
  shift
  env HAUS_LISTEN=127.0.0.1:0 HAUS_NODE="$name" HAUS_DATA_DIR="$PRIVATE/data" HAUS_LOG="${HAUS_LOG:-warn}" "$@" \
    "$HAUS" serve >"$out" 2>"$PRIVATE/$name.log" &
  NODE_PID=$!
  STARTED+=("$NODE_PID")
  wait_for "node $name" 60 node_said_something "$NODE_PID" "$out"
  grep -q '"ready":true' "$out" || { tail -5 "$PRIVATE/$name.log" >&2; die "node $name did not start"; }
  NODE_URL=http://$(sed -n 's/.*"listen":"\([^"]*\)".*/\1/p' "$out" | head -1)
}

# Ready, or gone: either ends the wait.
node_said_something() {
  grep -q '"ready":true' "$2" || ! kill -0 "$1"
}
