"""Small file system that tests can fill."""

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
    """Mount a file system of limited size and number of files. Skips the test if mounting is not allowed."""
    folder.mkdir()
    options = f"size={size},nr_inodes={files}"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("needs root with the right to mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Use all space, but not all files; return the file that uses it."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(PAGE_BYTES)) == PAGE_BYTES:
                pass
        except OSError as exc:
            assert exc.errno == errno.ENOSPC, exc  # noqa: PT017 - a full disk is wanted here
    return ballast


def free_pages(ballast: Path, pages: int) -> None:
    """Free that many pages of space."""
    os.truncate(ballast, ballast.stat().st_size - pages * PAGE_BYTES)
