"""Look at processes and descriptors of this host through /proc. Linux only."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def is_alive(pid: int) -> bool:
    """Return True if the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def pids() -> Iterable[int]:
    """Return the pids of all visible processes, zombies included."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208


def children_of(parent: int) -> set[int]:
    """Return the pids of a process's direct children, zombies included."""
    found: set[int] = set()
    for tasks in Path(f"/proc/{parent}/task").glob("*/children"):
        with suppress(OSError):
            found.update(int(child) for child in tasks.read_text().split())
    return found


def processes_with(marker: str) -> list[int]:
    """Return the pids of all processes with the marker in their command lines, except this one. Zombies have none."""
    needle = marker.encode()
    return [pid for pid in pids() if pid != os.getpid() and needle in _read(Path(f"/proc/{pid}/cmdline"))]


def open_fds() -> dict[str, str]:
    """Return the open descriptors of this process and their targets."""
    found = {}
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115
        except FileNotFoundError:
            continue  # the descriptor of the listing itself is already closed
    return found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
