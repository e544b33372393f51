#!/bin/sh
# As `swissbrain verify`, from a checkout: deploy/verify.sh [OPTIONS].
set -eu
bin="$(cd "$(dirname "$0")/.." && pwd)/.venv/bin/swissbrain"
[ -x "$bin" ] || { echo "verify.sh: run 'make setup' first" >&2; exit 2; }
exec "$bin" verify "$@"
