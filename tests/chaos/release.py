"""The code of an earlier commit, taken out of git."""

import io
import os
import subprocess
import tarfile
from pathlib import Path

from tests.chaos.processes import ROOT

REVISION = os.environ.get("CHAOS_PREVIOUS", "HEAD~1")
"""The commit whose workers meet this one's."""


class NoHistory(Exception):
    """There is no git, or a clone without that commit; the message says which."""


def take_out(folder: Path) -> Path:
    """Put all files of that commit below `folder`. Raises NoHistory."""
    try:
        archive = subprocess.run(["git", "archive", REVISION], cwd=ROOT, capture_output=True)
    except FileNotFoundError:
        raise NoHistory("git is not installed") from None
    if archive.returncode:
        raise NoHistory(f"git has no commit {REVISION} here: {archive.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    return folder
