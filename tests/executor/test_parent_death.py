"""kill -9 of the worker: nothing that it started lives on, whatever it was doing just then."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.executor.rig import Bench, processes_with
from tests.support.waiting import wait_until

REPOSITORY = Path(__file__).parents[2]


@contextmanager
def worker(bench: Bench, mode: str, count: int) -> Iterator["subprocess.Popen[bytes]"]:
    argv = [sys.executable, "-m", "tests.executor.parent", str(bench.root), bench.marker, mode, str(count)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=REPOSITORY)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("mode", ["sandbox", "unsafe"])
def test_programs_under_way_die_with_the_worker(bench: Bench, mode: str) -> None:
    with worker(bench, mode, 4) as process:
        assert process.stdout
        assert [process.stdout.readline() for _ in range(5)] == [b"begin\n", *[b"up\n"] * 4]
        wait_until(lambda: len(bench.alive()) >= 4, "the daemons are up")
        process.kill()
        process.wait()
        wait_until(lambda: not bench.alive(), "all are dead")


@pytest.mark.parametrize("mode", ["sandbox", "unsafe"])
def test_programs_just_being_started_die_with_the_worker(bench: Bench, mode: str) -> None:
    chance = random.Random(7)
    before = _strays()
    for _ in range(12):
        with worker(bench, mode, 8) as process:
            assert process.stdout
            assert process.stdout.readline() == b"begin\n"
            time.sleep(chance.uniform(0, 0.1))
            process.kill()
            process.wait()
        wait_until(lambda: not bench.alive() and _strays() <= before, "all are dead")


def _strays() -> set[int]:
    """Processes that bubblewrap left, also those that have not reached their program yet."""
    return {pid for pid in processes_with("bwrap") if os.getpid() != pid}
