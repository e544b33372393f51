"""Child processes: started, watched, stopped, and never left behind."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from infra.devstack import process as process_module
from infra.devstack.errors import StackError
from tests.devstack import processes
from tests.devstack.processes import child, is_alive
from tests.support.waiting import wait_until

PARENT = """
import asyncio, sys
from pathlib import Path
from tests.devstack import processes

async def main():
    one = processes.child(Path(sys.argv[1]), processes.SLEEPER)
    await one.start()
    print(one.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_it_is_up_when_it_is_ready_and_gone_when_stopped(tmp_path: Path) -> None:
    one = child(tmp_path, processes.SLEEPER)
    await one.start()
    pid = one.pid
    assert pid
    assert is_alive(pid)
    assert os.getsid(pid) == pid
    await one.stop()
    assert one.pid is None
    assert not is_alive(pid)
    await one.stop()


async def test_one_that_ignores_sigterm_is_killed_after_its_time(tmp_path: Path) -> None:
    one = child(tmp_path, processes.DEAF, stop_timeout_s=0.3)
    await one.start()
    pid = one.pid
    assert pid
    began = time.monotonic()
    await one.stop()
    assert not is_alive(pid)
    assert 0.3 <= time.monotonic() - began < 5


async def test_what_it_started_is_ended_with_it(tmp_path: Path) -> None:
    one = child(tmp_path, processes.LEAVES_ONE_BEHIND)
    await one.start()
    left = int((tmp_path / "thing.log").read_text().split()[0])
    assert is_alive(left)
    await one.stop()
    wait_until(lambda: not is_alive(left), "what the child started is gone")


async def test_one_that_ends_at_once_says_why(tmp_path: Path) -> None:
    one = child(tmp_path, processes.BROKEN)
    with pytest.raises(StackError, match=r"^thing ended with exit code 1: the disk is made of cheese \(.*thing.log\)$"):
        await one.start()
    await one.stop()


async def test_one_that_is_never_ready_is_given_up(tmp_path: Path) -> None:
    one = child(tmp_path, "import time; time.sleep(600)", start_timeout_s=0.3)
    with pytest.raises(StackError, match=r"thing is not ready after 0\.3 s"):
        await one.start()
    pid = one.pid
    assert pid
    await one.stop()
    assert not is_alive(pid)


async def test_a_program_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    one = child(tmp_path, "")
    one.part = type(one.part)(name="thing", command=("/no/such/program",), environment={}, folder=tmp_path)
    with pytest.raises(StackError, match="cannot start /no/such/program: No such file or directory"):
        await one.start()


async def test_a_crashed_one_is_started_again_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_module, "FIRST_DELAY_S", 0.01)
    one, lines = child(tmp_path, processes.SLEEPER), list[str]()
    await one.start()
    watcher = asyncio.create_task(one.supervise(lines.append))
    for crash in range(1, 3):
        pid = one.pid
        assert pid
        os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(10):
            while len(lines) < 2 * crash:
                await asyncio.sleep(0.01)
        assert one.pid not in {None, pid}
    assert lines[0].startswith("thing was ended by SIGKILL; starting it again in 0.01 s: up")
    assert lines[1] == "thing is up again"
    assert "in 0.02 s" in lines[2]
    watcher.cancel()
    await asyncio.gather(watcher, return_exceptions=True)
    await one.stop()


async def test_being_cancelled_while_it_starts_leaves_one_that_can_be_stopped(tmp_path: Path) -> None:
    one = child(tmp_path, "import time; time.sleep(600)")
    starting = asyncio.create_task(one.start())
    async with asyncio.timeout(10):
        while not one.pid:
            await asyncio.sleep(0.01)
    pid = one.pid
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await one.stop()
    assert not is_alive(pid)


def test_kill_9_of_the_parent_leaves_no_orphan(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        parent.kill()
    wait_until(lambda: not is_alive(pid), "the child has died with its parent")
