#!/bin/sh
# Install Debian packages that are not installed yet: packages.sh NAME…
set -eu

missing=
for name in "$@"; do
    status=$(dpkg-query --show --showformat='${db:Status-Status}' "$name" 2>/dev/null) || status=
    [ "$status" = installed ] || missing="$missing $name"
done
[ -n "$missing" ] || exit 0

export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet=2
# Names of packages contain no spaces. Standard output is one line per package and step; errors are on standard error.
# shellcheck disable=SC2086
apt-get install --quiet=2 --yes --no-install-recommends -o Dpkg::Use-Pty=0 $missing >/dev/null
