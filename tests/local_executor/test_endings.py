"""How programs end: by themselves, at their timeout, by a cancel; and that nothing of them is left."""

import asyncio
import gc
import random

import pytest

from tests.local_executor.parent import DAEMON
from tests.local_executor.rig import Bench, Ran, open_fds
from tests.support.waiting import until


@pytest.mark.parametrize("code", [0, 1, 3, 126, 127, 255])
async def test_the_exit_code_is_that_of_the_program(bench: Bench, code: int) -> None:
    ran = await bench.run(f"exit {code}")
    assert (ran.code, ran.ended.timed_out) == (code, False)


async def test_a_missing_command_is_127(bench: Bench) -> None:
    ran = await bench.run("no-such-command")
    assert ran.code == 127
    assert "not found" in ran.err


@pytest.mark.parametrize(("signal", "code"), [("KILL", 137), ("TERM", 143), ("SEGV", 139), ("ABRT", 134)])
async def test_death_by_a_signal_is_128_and_its_number(bench: Bench, signal: str, code: int) -> None:
    assert (await bench.run(f"kill -{signal} $$")).code == code


async def test_the_duration_is_that_of_the_program(bench: Bench) -> None:
    ran = await bench.run("sleep 0.5")
    assert 500 <= ran.ended.duration_ms < 20_000


@pytest.mark.parametrize("interpreter", ["sh", "bash", "python"])
async def test_a_program_that_is_no_program(bench: Bench, interpreter: str) -> None:
    ran = await bench.run("if (((", interpreter)  # type: ignore[arg-type]
    assert ran.code not in {0, None}
    assert ran.err


async def test_a_program_has_its_timeout(bench: Bench) -> None:
    ran = await bench.run("echo begun; sleep 1000; : MARKER", timeout_s=0.5)
    assert (ran.code, ran.ended.timed_out, ran.out) == (None, True, "begun\n")
    assert not bench.alive()
    assert bench.files.stored == 1


async def test_a_timeout_takes_the_whole_tree(bench: Bench) -> None:
    ran = await bench.run(DAEMON, "python", timeout_s=1)
    assert ran.ended.timed_out
    assert not bench.alive()


async def test_a_program_that_ends_takes_its_daemons_with_it(bench: Bench) -> None:
    ran = await bench.run(DAEMON.replace("time.sleep(3600)", "time.sleep(0.3)"), "python")
    assert ran.code == 0
    assert not bench.alive()


async def test_a_cancel_takes_the_whole_tree(bench: Bench) -> None:
    running = await _under_way(bench, DAEMON)
    assert bench.alive()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not bench.alive()
    assert bench.files.stored == 0


async def test_a_cancel_takes_a_stopped_program(bench: Bench) -> None:
    running = await _under_way(bench, "import os, signal\nprint('up')\nos.kill(os.getpid(), signal.SIGSTOP)\n'MARKER'")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_cancel_takes_a_fork_bomb(bench: Bench) -> None:
    source = "import os, time\nprint('up')\nwhile True:\n    try: os.fork()\n    except OSError: time.sleep(0.01)\n"
    running = await _under_way(bench, source)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_cancel_is_not_held_up_by_a_flood_or_a_slow_log(bench: Bench) -> None:
    for _ in range(3):
        running = asyncio.ensure_future(bench.run("yes MARKER", timeout_s=100))
        await asyncio.sleep(0.3)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert not bench.alive()


async def test_cancelled_twice(bench: Bench) -> None:
    running = await _under_way(bench, DAEMON)
    for _ in range(5):
        running.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not bench.alive()


async def test_a_storm_of_cancels_leaves_nothing(bench: Bench) -> None:
    """Each at another instant of the start, some of them again while the first is being obeyed."""
    await bench.run("true", run_id="warm")
    await bench.executor.release("warm")
    bench.files.stored = 0
    gc.collect()
    before = open_fds()
    chance = random.Random(11)
    for number in range(100):
        running = asyncio.ensure_future(bench.run(DAEMON, "python", run_id=f"run-{number}", timeout_s=100))
        await asyncio.sleep(chance.choice([0, 0.001, 0.01, 0.05, 0.1]) * chance.random())
        running.cancel()
        if chance.random() < 0.5:
            await asyncio.sleep(chance.random() * 0.005)
            running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await bench.executor.release(f"run-{number}")
    assert not bench.alive()
    assert bench.left() == []
    assert bench.files.stored == 0
    await _no_more_fds(before)


async def test_many_ends_leave_no_descriptor(bench: Bench) -> None:
    await bench.run("true")
    before = open_fds()
    for source in ("true", "false", "kill -9 $$", "head -c 1M /dev/zero", "exec >&-"):
        for _ in range(3):
            await bench.run(source)
    await bench.run("sleep 100", timeout_s=0.2)
    await _no_more_fds(before)


async def _under_way(bench: Bench, source: str) -> "asyncio.Task[Ran]":
    """A program that has said `up`."""
    up = asyncio.Event()
    running = asyncio.ensure_future(bench.run(source, "python", on_line=lambda *_: up.set(), timeout_s=100))
    waiting = asyncio.ensure_future(up.wait())
    await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED, timeout=60)
    assert up.is_set(), running
    return running


async def _no_more_fds(before: dict[str, str]) -> None:
    async def none() -> bool:
        return len(open_fds()) <= len(before)

    await until(none, "all descriptors are closed again", timeout_s=5)
