#!/bin/sh
# Last step of each image: finish.sh NAME VERSION [LIST…]. Removes set-uid bits and caches, refuses build tools, and
# writes the list of the software, to which cyclonedx-py's lists of environments are added.
set -eu

name=$1 version=$2
shift 2

# No process of an image may gain rights; su, mount and others would be of no use with dropped capabilities.
find / -xdev -path /context -prune -o -perm /6000 -exec chmod ug-s {} +
find / -xdev -path /context -prune -o -path /tmp -prune -o -type d -perm -0002 -exec chmod o-w {} +
rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/cache/ldconfig/* /var/log/* /tmp/* \
    /root/.cache /root/.gnupg /root/.ssh

for tool in cc gcc g++ clang rustc go; do
    if command -v "$tool" >/dev/null; then
        echo "the image contains the compiler $(command -v "$tool"); use a BASE without it" >&2
        exit 1
    fi
done
python3 /context/sbom.py "$name" "$version" /opt/swissbrain/sbom.json "$@"
rm -f "$@"
