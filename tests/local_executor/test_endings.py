"""Ends of programs: exit codes, timeouts and cancellations, without processes or descriptors left behind."""

import asyncio
import gc
import random

import pytest

from infra.contract.execution import Command, LinePart
from tests.local_executor.rig import DAEMON, RUN_ID, Bench
from tests.support.processes import open_fds
from tests.support.waiting import until


async def test_the_duration_of_the_program_is_returned(bench: Bench) -> None:
    ran = await bench.run("sleep 0.5")
    assert 500 <= ran.execution.duration_ms < 20_000


async def test_a_slow_log_is_not_part_of_the_duration(bench: Bench) -> None:
    async def slow(_stream: str, _part: LinePart) -> bool:
        async def dead() -> bool:
            return not bench.alive()

        await until(dead, "the program has ended")
        await asyncio.sleep(2)
        return True

    clock = asyncio.get_running_loop().time
    began_s = clock()
    command = Command(RUN_ID, "step-0", "sh", f"echo {bench.marker}", timeout_s=60)
    execution = await bench.executor.execute(command, bench.files, slow)
    assert execution.duration_ms / 1000 < clock() - began_s - 1


@pytest.mark.parametrize("interpreter", ["sh", "bash", "python"])
async def test_a_syntax_error_is_an_exit_code_and_a_message(bench: Bench, interpreter: str) -> None:
    ran = await bench.run("if (((", interpreter)  # type: ignore[arg-type]
    assert ran.code not in {0, None}
    assert ran.err


async def test_a_cancellation_is_not_delayed_by_much_output(bench: Bench) -> None:
    for _ in range(3):
        running = asyncio.ensure_future(bench.run("yes MARKER", timeout_s=100))
        await asyncio.sleep(0.3)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert not bench.alive()


async def test_repeated_cancellations_kill_the_whole_tree(bench: Bench) -> None:
    running = await bench.start(DAEMON)
    for _ in range(5):
        running.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not bench.alive()


async def test_cancellations_at_random_instants_leave_nothing(bench: Bench) -> None:
    """Cancels at random instants of the start; half of the times a second time during the first cancellation."""
    await bench.run("true", run_id="warm")
    await bench.executor.release("warm")
    bench.files.stored = 0
    gc.collect()
    before = open_fds()
    chance = random.Random(11)
    for number in range(50):
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
    await _assert_fds_closed(before)


async def test_ended_programs_leave_no_open_descriptor(bench: Bench) -> None:
    await bench.run("true")
    before = open_fds()
    for source in ("true", "false", "kill -9 $$", "head -c 1M /dev/zero", "exec >&-"):
        for _ in range(3):
            await bench.run(source)
    await bench.run("sleep 100", timeout_s=0.2)
    await _assert_fds_closed(before)


async def _assert_fds_closed(before: dict[str, str]) -> None:
    async def closed() -> bool:
        return len(open_fds()) <= len(before)

    await until(closed, "all descriptors are closed again")
