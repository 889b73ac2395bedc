#!/usr/bin/env bash
# browser-test.sh HAUS: two people in two headless browsers on a private node, which is restarted once in between.
set -euo pipefail
cd "$(dirname "$0")/.."
haus=$1

folder=$(mktemp -d "${TMPDIR:-/tmp}/haus-browser.XXXXXX")
chmod 755 "$folder"
node_pid=''
stop() {
  [ -z "$node_pid" ] || { kill -TERM "$node_pid" 2>/dev/null && wait "$node_pid" || true; }
  node_pid=''
}
end() {
  code=$?
  stop
  [ $code = 0 ] || tail -20 "$folder/log" >&2
  rm -rf "$folder"
}
trap end EXIT

# start ADDRESS: sets address to where it listens.
start() {
  env -u DATABASE_URL -u DATABASE_OWNER_URL -u REDIS_URL HAUS_DATA_DIR="$folder/data" HAUS_LISTEN="$1" HAUS_LOG=warn \
    "$haus" serve >"$folder/ready" 2>>"$folder/log" &
  node_pid=$!
  for _ in $(seq 300); do
    address=$(sed -n 's/.*"listen":"\([^"]*\)".*/\1/p' "$folder/ready")
    [ -z "$address" ] || return 0
    kill -0 "$node_pid" 2>/dev/null || break
    sleep 0.1
  done
  echo 'the node did not become ready' >&2
  return 1
}

start 127.0.0.1:0
read -r first first_password < <(sed -n 2p "$folder/data/logins.txt")
read -r second second_password < <(sed -n 3p "$folder/data/logins.txt")

coproc CHAT { node tests/browser/chat.mjs "http://$address" "$first" "$first_password" "$second" "$second_password"; }
chat_pid=$CHAT_PID
while read -r line <&"${CHAT[0]}"; do
  if [ "$line" = RESTART ]; then
    stop
    start "$address"
    echo OK >&"${CHAT[1]}"
  else
    echo "$line"
  fi
done
wait "$chat_pid"
