"""Tests of `make test-fast`: those listed in tests/fast.txt may start no server, no worker and no sandbox."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LIST = ROOT / "tests" / "fast.txt"
IGNORE = "--ignore="
PROGRAMS = frozenset({"bwrap", "valkey-server", "weed"})
MODULES = frozenset({"edge_api", "edge_api.lambda_stream", "infra.gateway", "infra.qstash_local", "worker"})


class _Guard:
    active = False
    installed = False


@cache
def listed_paths() -> tuple[list[Path], list[Path]]:
    """Return the paths that tests/fast.txt names, and the paths that it leaves out."""
    lines = LIST.read_text().split()
    left_out = [ROOT / line.removeprefix(IGNORE) for line in lines if line.startswith(IGNORE)]
    return [ROOT / line for line in lines if not line.startswith(IGNORE)], left_out


@cache
def is_fast(path: Path) -> bool:
    """Return True if the file belongs to the tests of `make test-fast`."""
    named, left_out = listed_paths()
    return any(path.is_relative_to(each) for each in named) and path not in left_out


@contextmanager
def no_stack() -> Iterator[None]:
    """Let a test fail that starts a part of the stack."""
    if not _Guard.installed:
        sys.addaudithook(_check)  # stays for the life of the process, because hooks cannot be removed
        _Guard.installed = True
    _Guard.active = True
    try:
        yield
    finally:
        _Guard.active = False


def _check(event: str, details: tuple[Any, ...]) -> None:
    # Other threads belong to stacks of other tests, which may restart a part at any time.
    if event != "subprocess.Popen" or not _Guard.active or threading.current_thread() is not threading.main_thread():
        return
    command = [str(word) for word in details[1]]
    modules = {command[index + 1] for index, word in enumerate(command[:-1]) if word == "-m"}
    if PROGRAMS & {Path(word).name for word in command} or MODULES & modules:
        pytest.fail(f"a test in tests/fast.txt starts a part of the stack: {' '.join(command)[:200]}")
