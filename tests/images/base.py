"""Base image for the tests, without a registry: `python3 -m tests.images.base FILE` writes its root file system as tar.

It is Debian's smallest variant with Python, so that three builds do not each unpack Python again. The package lists
stay in it, because each build would read all of them again. Only the standard library is imported, because `.ci/run`
starts this before anything is installed.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path

RELEASES = {(3, 11): "bookworm", (3, 13): "trixie"}
"""Releases of Debian by the version of their Python. The wheels in the images are those of the tests."""
SOURCES = (Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*.sources"))
NO_PERL = 'printf "Package: usrmerge\\nPin: release *\\nPin-Priority: -1\\n" >"$1/etc/apt/preferences.d/usrmerge"'
"""Hook: `usr-is-merged` is installed instead of a program that merges, which needs Perl."""


def write(target: Path, release: str) -> None:
    """Write the tar file of the base. Raises CalledProcessError, with the messages of mmdebstrap."""
    unused = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "locale", "man")]
    fast = ["--dpkgopt=force-unsafe-io", '--aptopt=Acquire::Languages "none"', "--skip=cleanup/apt/lists,output/mknod"]
    hooks = ["--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr", f"--setup-hook={NO_PERL}"]
    words = ["mmdebstrap", "--quiet", "--variant=minbase", "--include=python3,ca-certificates", *unused, *fast, *hooks]
    # The mirror is that of this machine, or else mmdebstrap's own choice.
    sources = [f"deb {address} {release} main" for address in _addresses() if address.rstrip("/").endswith("/debian")]
    subprocess.run([*words, release, str(target), *sources[:1]], check=True, capture_output=True, text=True)


def _addresses() -> Iterator[str]:
    for line in (line for path in SOURCES if path.is_file() for line in path.read_text().splitlines()):
        if line.startswith(("URIs:", "deb ")):
            yield from (word for word in line.split() if "://" in word)
