"""Source code of earlier commits, extracted from git."""

import io
import os
import subprocess
import tarfile
from pathlib import Path

from tests.chaos.processes import ROOT

REVISIONS = (os.environ["CHAOS_PREVIOUS"],) if "CHAOS_PREVIOUS" in os.environ else ("HEAD~1", "HEAD~2", "HEAD~3")
"""Commits of which the first whose worker starts is the previous release. No broken commit becomes a release."""


class NoHistory(Exception):
    """Raised if git is missing, or the clone lacks the commit; the message says which."""


def extract(revision: str, folder: Path) -> Path:
    """Extract all files of a commit into `folder`. Raises NoHistory."""
    try:
        archive = subprocess.run(["git", "archive", revision], cwd=ROOT, capture_output=True)
    except FileNotFoundError:
        raise NoHistory("git is not installed") from None
    if archive.returncode:
        raise NoHistory(f"git has no commit {revision} here: {archive.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        if hasattr(tarfile, "data_filter"):
            files.extractall(folder, filter="data")
        else:  # Python 3.11.3 and earlier; the archive is from this repository
            files.extractall(folder)
    return folder
