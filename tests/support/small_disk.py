"""A file system of its own that is soon full."""

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@contextmanager
def small_disk(folder: Path, size: str, files: int = 1000) -> Iterator[Path]:
    """Holds so much, in so many files and folders. Skips the test where nobody may mount."""
    folder.mkdir()
    options = f"size={size},nr_inodes={files}"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("needs root that may mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Take all of its space, but not its files; the answer is the file that has it."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(PAGE_BYTES)) == PAGE_BYTES:
                pass
        except OSError as exc:
            assert exc.errno == errno.ENOSPC, exc  # noqa: PT017 - that it is full is no failure of the test
    return ballast


def give_back(ballast: Path, pages: int) -> None:
    """Let there be so many pages of space again."""
    os.truncate(ballast, ballast.stat().st_size - pages * PAGE_BYTES)
