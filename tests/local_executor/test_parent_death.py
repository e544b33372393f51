"""kill -9 of the worker: nothing that it started lives on, whatever it was doing just then."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from infra.local_executor import guard as guard_source
from tests.local_executor.parent import DAEMON
from tests.local_executor.rig import Bench, children_of, processes_with
from tests.support.waiting import wait_until

REPOSITORY = Path(__file__).parents[2]


@contextmanager
def worker(bench: Bench, mode: str, count: int) -> Iterator["subprocess.Popen[bytes]"]:
    root = str(bench.root.with_name("worker"))
    argv = [sys.executable, "-m", "tests.local_executor.parent", root, bench.marker, mode, str(count)]
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
    for _ in range(8):
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


async def test_a_guard_that_is_killed_takes_the_program_along(bench: Bench) -> None:
    """Nothing but an administrator does that."""
    up = asyncio.Event()
    running = asyncio.ensure_future(bench.run(DAEMON, "python", on_line=lambda *_: up.set(), timeout_s=100))
    await asyncio.wait_for(up.wait(), 60)
    (guard,) = children_of(os.getpid()) & set(processes_with("guard.py"))
    os.kill(guard, signal.SIGKILL)
    assert (await running).code == 137
    wait_until(lambda: not bench.alive(), "the program is dead")


async def test_a_guard_is_deaf_to_what_is_meant_for_the_worker(bench: Bench) -> None:
    """A signal to all of a service, such as that of systemd, must not cut the guard off its program."""
    up = asyncio.Event()
    source = DAEMON.replace("time.sleep(3600)", "time.sleep(1)")
    running = asyncio.ensure_future(bench.run(source, "python", on_line=lambda *_: up.set(), timeout_s=100))
    await asyncio.wait_for(up.wait(), 60)
    (guard,) = children_of(os.getpid()) & set(processes_with("guard.py"))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(guard, number)
    assert (await running).code == 0
    assert not bench.alive()


def test_a_guard_without_open_files_ends_its_program_all_the_same(bench: Bench) -> None:
    """It has one, for watching its own program, and none for looking at others."""
    limited = ["prlimit", "--nofile=4", sys.executable, "-I", "-S", guard_source.__file__, "0", "0", "0"]
    program = [sys.executable, "-S", "-c", "import time; time.sleep(600)", bench.marker]
    process = subprocess.Popen([*limited, *program], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    process.communicate()
    assert process.returncode == guard_source.KILLED
    assert not bench.alive()
