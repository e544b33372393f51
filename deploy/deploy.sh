#!/bin/sh
# As `swissbrain deploy`, from a checkout: deploy/deploy.sh [deploy.toml] [OPTIONS]. docs/deploy.md explains both.
set -eu
bin="$(cd "$(dirname "$0")/.." && pwd)/.venv/bin/swissbrain"
[ -x "$bin" ] || { echo "deploy.sh: run 'make setup' first" >&2; exit 2; }
exec "$bin" deploy "$@"
