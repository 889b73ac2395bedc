#!/usr/bin/env bash
# need.sh PROGRAM:PACKAGE…: installs the Debian packages of missing programs as root, else names them in one line.
set -euo pipefail

# Debian keeps the server programs of Postgres, and PgBouncer, off PATH.
has() {
  case $1 in
    postgres) command -v postgres >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null ;;
    venv) python3 -c 'import ensurepip, venv' 2>/dev/null ;;
    pgbouncer) command -v pgbouncer >/dev/null || [ -x /usr/sbin/pgbouncer ] ;;
    *) command -v "$1" >/dev/null ;;
  esac
}

missing=()
for pair in "$@"; do
  has "${pair%%:*}" || missing+=("${pair##*:}")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "installing ${missing[*]}" >&2
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q >&2
  apt-get install -q -y --no-install-recommends "${missing[@]}" >&2
else
  echo "missing: install with  sudo apt-get install ${missing[*]}" >&2
  exit 1
fi
