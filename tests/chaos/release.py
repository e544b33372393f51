"""Source code of an earlier commit, extracted from git."""

import io
import os
import subprocess
import tarfile
from pathlib import Path

from tests.chaos.processes import ROOT

REVISION = os.environ.get("CHAOS_PREVIOUS", "HEAD~1")
"""Commit whose workers run beside those of this commit."""


class NoHistory(Exception):
    """Raised if git is missing, or the clone lacks the commit; the message says which."""


def extract(folder: Path) -> Path:
    """Extract all files of REVISION into `folder`. Raises NoHistory."""
    try:
        archive = subprocess.run(["git", "archive", REVISION], cwd=ROOT, capture_output=True)
    except FileNotFoundError:
        raise NoHistory("git is not installed") from None
    if archive.returncode:
        raise NoHistory(f"git has no commit {REVISION} here: {archive.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        if hasattr(tarfile, "data_filter"):
            files.extractall(folder, filter="data")
        else:  # Python 3.11.3 and earlier; the archive is from this repository
            files.extractall(folder)
    return folder
