"""Child processes of the stack: start, restart, stop, and no orphans."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from infra.devstack import supervised_process
from infra.devstack.errors import StackError
from tests.devstack import programs
from tests.devstack.programs import supervised
from tests.support.processes import is_alive
from tests.support.waiting import wait_until

PARENT = """
import asyncio, sys
from pathlib import Path
from tests.devstack import programs

async def main():
    process = programs.supervised(Path(sys.argv[1]), programs.SLEEPER)
    await process.start()
    print(process.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_a_process_is_alive_after_start_and_dead_after_stop(tmp_path: Path) -> None:
    process = supervised(tmp_path, programs.SLEEPER)
    await process.start()
    pid = process.pid
    assert pid
    assert is_alive(pid)
    assert os.getsid(pid) == pid
    await process.stop()
    assert process.pid is None
    assert not is_alive(pid)
    await process.stop()


async def test_a_process_that_ignores_sigterm_is_killed_after_its_stop_timeout(tmp_path: Path) -> None:
    process = supervised(tmp_path, programs.IGNORES_SIGTERM, stop_timeout_s=0.3)
    await process.start()
    pid = process.pid
    assert pid
    began = time.monotonic()
    await process.stop()
    assert not is_alive(pid)
    assert 0.3 <= time.monotonic() - began < 5


async def test_stopping_a_process_kills_its_own_children(tmp_path: Path) -> None:
    process = supervised(tmp_path, programs.LEAVES_CHILD)
    await process.start()
    child = int((tmp_path / "thing.log").read_text().split()[0])
    assert is_alive(child)
    await process.stop()
    wait_until(lambda: not is_alive(child), "the child of the process is dead")


async def test_a_process_that_ends_during_its_start_is_an_error_with_its_last_log_line(tmp_path: Path) -> None:
    process = supervised(tmp_path, programs.BROKEN)
    with pytest.raises(StackError, match=r"^thing ended with exit code 1: the disk is made of cheese \(.*thing.log\)$"):
        await process.start()
    await process.stop()


async def test_a_process_that_is_never_ready_is_an_error(tmp_path: Path) -> None:
    process = supervised(tmp_path, programs.NEVER_READY, start_timeout_s=0.3)
    with pytest.raises(StackError, match=r"thing is not ready after 0\.3 s"):
        await process.start()
    pid = process.pid
    assert pid
    await process.stop()
    assert not is_alive(pid)


async def test_a_missing_program_is_an_error_of_one_line(tmp_path: Path) -> None:
    process = supervised(tmp_path, "")
    process.spec = type(process.spec)(name="thing", command=("/no/such/program",), environment={}, folder=tmp_path)
    with pytest.raises(StackError, match="cannot start /no/such/program: No such file or directory"):
        await process.start()


async def test_a_crashed_process_is_restarted_and_the_crash_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervised_process, "FIRST_DELAY_S", 0.01)
    process, lines = supervised(tmp_path, programs.SLEEPER), list[str]()
    await process.start()
    supervisor = asyncio.create_task(process.supervise(lines.append))
    for crash in range(1, 3):
        pid = process.pid
        assert pid
        os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(60):
            while len(lines) < 2 * crash:
                await asyncio.sleep(0.01)
        assert process.pid not in {None, pid}
    assert lines[0].startswith(f"thing was ended by SIGKILL ({tmp_path}")
    assert lines[0].endswith("; starting it again in 0.01 s")
    assert lines[1] == "thing is up again"
    assert "in 0.02 s" in lines[2]
    supervisor.cancel()
    await asyncio.gather(supervisor, return_exceptions=True)
    await process.stop()


async def test_a_restart_that_is_not_ready_in_time_is_reported_with_this_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervised_process, "FIRST_DELAY_S", 0.01)
    process, lines = supervised(tmp_path, programs.READY_ONCE), list[str]()
    await process.start()
    process.spec = replace(process.spec, start_timeout_s=2)
    supervisor = asyncio.create_task(process.supervise(lines.append))
    async with asyncio.timeout(60):
        while len(lines) < 2:
            await asyncio.sleep(0.01)
    supervisor.cancel()
    await asyncio.gather(supervisor, return_exceptions=True)
    await process.stop()
    assert lines[0].startswith("thing ended with exit code 1: the cheese is gone (")
    assert lines[1].startswith("thing is not ready after 2 s")


async def test_a_process_whose_start_was_cancelled_can_be_stopped(tmp_path: Path) -> None:
    process = supervised(tmp_path, programs.NEVER_READY)
    start = asyncio.create_task(process.start())
    async with asyncio.timeout(60):
        while not process.pid:
            await asyncio.sleep(0.01)
    pid = process.pid
    start.cancel()
    await asyncio.gather(start, return_exceptions=True)
    await process.stop()
    assert not is_alive(pid)


def test_a_child_dies_with_a_killed_parent(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        parent.kill()
    wait_until(lambda: not is_alive(pid), "the child has died with its parent")
