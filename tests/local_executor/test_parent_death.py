"""SIGKILL of the worker or the guard: all programs die with it, at any instant."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.local_executor import guard as guard_source
from tests.local_executor.rig import DAEMON, Bench, wait_for_programs, worker_process
from tests.support.processes import children_of, processes_with
from tests.support.waiting import wait_until


@pytest.mark.parametrize("mode", ["sandbox", "unsafe"])
def test_running_programs_die_with_the_worker(bench: Bench, mode: str) -> None:
    with worker_process(bench.root.with_name("worker"), bench.marker, mode, 4) as process:
        wait_for_programs(process, 4)
        wait_until(lambda: len(bench.alive()) >= 4, "the daemons are up")
        process.kill()
        process.wait()
        wait_until(lambda: not bench.alive(), "all are dead")


@pytest.mark.parametrize("mode", ["sandbox", "unsafe"])
def test_starting_programs_die_with_the_worker(bench: Bench, mode: str) -> None:
    chance = random.Random(7)
    before = _strays()
    for _ in range(5):
        with worker_process(bench.root.with_name("worker"), bench.marker, mode, 8) as process:
            assert process.stdout
            assert process.stdout.readline() == b"begin\n"
            time.sleep(chance.uniform(0, 0.1))
            process.kill()
            process.wait()
        wait_until(lambda: not bench.alive() and _strays() <= before, "all are dead")


def _strays() -> set[int]:
    """Return processes of bubblewrap without a living worker, including those that have not started their program yet.

    Those of other tests, which run at the same time, are descendants of pytest.
    """
    supervised = set(processes_with("pytest")) | {os.getpid()}
    return {pid for pid in processes_with("bwrap") if not supervised & set(_ancestors(pid))}


def _ancestors(pid: int) -> Iterator[int]:
    while pid > 1:
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            return
        yield pid


async def test_a_program_dies_with_its_killed_guard(bench: Bench) -> None:
    """Only an administrator kills a guard."""
    running = await bench.start(DAEMON)
    (guard,) = children_of(os.getpid()) & set(processes_with("guard.py"))
    os.kill(guard, signal.SIGKILL)
    assert (await running).code == 137
    wait_until(lambda: not bench.alive(), "the program is dead")


async def test_a_guard_ignores_signals_for_the_worker(bench: Bench) -> None:
    """A service manager such as systemd sends signals to all processes of a service, guards included."""
    running = await bench.start(DAEMON.replace("time.sleep(3600)", "time.sleep(1)"))
    (guard,) = children_of(os.getpid()) & set(processes_with("guard.py"))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(guard, number)
    assert (await running).code == 0
    assert not bench.alive()


def test_a_guard_without_free_descriptors_kills_its_program(bench: Bench) -> None:
    """One descriptor is free to watch the program, none to read /proc."""
    no_limits = ["0", "0", "0", "0", "", "", "0", "0"]
    limited = ["prlimit", "--nofile=4", sys.executable, "-I", "-S", guard_source.__file__, *no_limits]
    program = [sys.executable, "-S", "-c", "import time; time.sleep(600)", bench.marker]
    process = subprocess.Popen([*limited, *program], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    process.communicate()
    assert process.returncode == guard_source.KILLED
    assert not bench.alive()
