#!/usr/bin/env bash
# `make load`: the k6 script of concurrent threads with few users, against a server this script starts and ends itself.
# VUS, DURATION (seconds), RATE (messages a second) may be set; SCRIPT=rest runs the REST mix instead; HAUS names a built server.
set -euo pipefail
cd "$(dirname "$0")/.."
. loadtest/private.sh

find_k6() {
  if command -v k6 >/dev/null; then
    command -v k6
  elif command -v go >/dev/null; then
    local bin="${XDG_CACHE_HOME:-$HOME/.cache}/haus-k6"
    if [ ! -x "$bin/k6" ]; then
      say 'no k6 on PATH: go install go.k6.io/k6@latest (about two minutes, once)'
      GOBIN="$bin" go install go.k6.io/k6@latest >&2 || return 1
    fi
    echo "$bin/k6"
  else
    return 1
  fi
}

K6=$(find_k6) || die 'make load needs k6: install it (https://k6.io) or Go, which this script then installs it with'
SCRIPT=${SCRIPT:-threads}
[ -f "loadtest/k6/$SCRIPT.js" ] || die "no script loadtest/k6/$SCRIPT.js"

if [ -z "${HAUS:-}" ]; then
  "${CARGO:-cargo}" build --release --bin haus
  HAUS=${CARGO_TARGET_DIR:-target}/release/haus
fi
private_begin
say 'starting a node on a private database'
start_node load HAUS_LIMITS=off
HAUS_DATA_DIR="$PRIVATE/data" HAUS_LOG=warn "$HAUS" seed --people 200 --threads 50 --members 10 --out "$PRIVATE/tokens.jsonl" >&2

HAUS_URL=$NODE_URL HAUS_TOKENS="$PRIVATE/tokens.jsonl" VUS="${VUS:-20}" DURATION="${DURATION:-15}" RATE="${RATE:-100}" \
  "$K6" run --quiet "loadtest/k6/$SCRIPT.js"
