"""Executors with the real bubblewrap. After each test no process of it may be left on the host."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.local_executor import LocalExecutor
from infra.scratch_root import ScratchRoot
from tests.local_executor.rig import Bench
from tests.support.processes import children_of
from tests.support.waiting import wait_until


@pytest.fixture(autouse=True)
def no_child_is_left() -> Iterator[None]:
    """Assert that no child process, dead or alive, outlives a test."""
    before = children_of(os.getpid())
    yield
    assert children_of(os.getpid()) <= before


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Bench with a sandbox."""
    yield from _checked(Bench(LocalExecutor(ScratchRoot(tmp_path / "scratch")), tmp_path / "scratch"))


@pytest.fixture
def unsafe(tmp_path: Path) -> Iterator[Bench]:
    """Bench without a sandbox."""
    yield from _checked(Bench(LocalExecutor(ScratchRoot(tmp_path / "scratch"), unsafe=True), tmp_path / "scratch"))


def _checked(bench: Bench) -> Iterator[Bench]:
    yield bench
    bench.executor.close()
    wait_until(lambda: not bench.alive(), "no process of the test is left")
    # Some tests create folders too deep for pytest's removal.
    subprocess.run(["/bin/rm", "-rf", str(bench.root)], check=True)
