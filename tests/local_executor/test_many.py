"""Many concurrent programs, with asyncio's event loop and with uvloop."""

import asyncio
import os
import resource
from contextlib import suppress
from pathlib import Path

import pytest
import uvloop

from infra.contract.errors import HostExhausted
from tests.local_executor.rig import DAEMON, RUN_ID, Bench, PlainFiles
from tests.support.processes import open_fds
from tests.support.waiting import until


async def twelve(bench: Bench) -> None:
    """Run twelve programs concurrently and compare their results."""
    before = len(open_fds())
    results = await asyncio.gather(
        *(
            bench.run(f"echo {n}; id -u; sleep 0.5; echo {n} > mine; exit {n}", run_id=f"run-{n}", files=PlainFiles())
            for n in range(12)
        )
    )
    assert [one.code for one in results] == list(range(12))
    assert [one.out.split()[0] for one in results] == [str(n) for n in range(12)]
    for n in range(12):
        assert (bench.root / f"run-{n}/workspace/mine").read_text() == f"{n}\n"
        await bench.executor.release(f"run-{n}")
    await asyncio.sleep(0.1)
    assert len(open_fds()) <= before


async def cancelled(bench: Bench) -> None:
    """Cancel eight concurrent programs with daemons."""
    running = await asyncio.gather(*(bench.start(DAEMON, run_id=f"run-{n}", files=PlainFiles()) for n in range(8)))
    assert len(bench.alive()) >= 8
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    assert all(task.cancelled() for task in running)
    assert not bench.alive()


async def everything(bench: Bench) -> None:
    """Run programs with every kind of end."""
    await bench.executor.check()
    await twelve(bench)
    await cancelled(bench)
    assert (
        await bench.run(
            "yes 'a line of some length, as most are in the output of programs' | head -c 5M", run_id="flood"
        )
    ).execution.stdout_bytes == 5 * 1024 * 1024
    assert (await bench.run("sleep 1000", run_id="late", timeout_s=0.5)).execution.timed_out
    assert (await bench.run("exec >&- 2>&-; exit 4", run_id="closed")).code == 4
    for n in range(7):
        task = asyncio.ensure_future(bench.run(DAEMON, "python", run_id=f"storm-{n}"))
        await asyncio.sleep(n * 0.012)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not bench.alive()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_many_programs_can_run_concurrently(bench: Bench, run: object) -> None:
    assert callable(run)
    run(everything(bench))


async def test_two_calls_of_one_run_share_its_workspace(bench: Bench) -> None:
    await bench.run("echo from the first > shared", call="step-0")
    assert (await bench.run("cat shared", call="step-1")).out == "from the first\n"


async def test_a_release_removes_deep_and_locked_folders(bench: Bench) -> None:
    source = (
        "import os\n"
        "for n in range(3000):\n"
        "    os.mkdir('d' * 20); os.chdir('d' * 20)\n"
        "    if n % 100 == 0: open('file', 'w').close(); os.symlink('/', 'link')\n"
    )
    locked = "mkdir -p a/b/c/d; touch a/b/c/d/e; chmod 0 a/b/c/d/e a/b/c/d a/b/c a/b a; ln -s /etc link; mkfifo pipe"
    assert (await bench.run(locked)).code == 0
    assert (await bench.run(source, "python")).code == 0
    await bench.executor.release(RUN_ID)
    assert bench.left() == []
    assert Path("/etc/passwd").exists()


async def test_a_start_without_free_descriptors_is_exhaustion_and_leaves_nothing(bench: Bench) -> None:
    """Varies the number of free descriptors, so that another call fails each time."""
    await bench.run("true")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = len(open_fds())
    outcomes = []
    for room in range(2, 30):
        filling = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        try:
            with suppress(OSError):
                while True:
                    filling.append(os.open("/dev/null", os.O_RDONLY))
            for _ in range(room):
                os.close(filling.pop())
            outcomes.append((await bench.run("echo fine; : MARKER")).out)
        except HostExhausted as exc:
            outcomes.append(str(exc))
        finally:
            for fd in filling:
                os.close(fd)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert outcomes[-1] == "fine\n"
    assert {*outcomes} == {"fine\n", "the worker's host is short of open files: Too many open files"}

    async def closed() -> bool:
        return len(open_fds()) <= before

    await until(closed, "all descriptors are closed again")
    assert not bench.alive()
