"""Ends of programs: exit codes, timeouts and cancellations, without processes or descriptors left behind."""

import asyncio

import pytest

from tests.local_executor.rig import DAEMON, Bench


@pytest.mark.parametrize("code", [0, 3, 255])
async def test_the_exit_code_of_the_program_is_returned(bench: Bench, code: int) -> None:
    ran = await bench.run(f"exit {code}")
    assert (ran.code, ran.execution.timed_out) == (code, False)


async def test_a_missing_command_exits_with_127(bench: Bench) -> None:
    ran = await bench.run("no-such-command")
    assert ran.code == 127
    assert "not found" in ran.err


@pytest.mark.parametrize(("signal", "code"), [("KILL", 137), ("SEGV", 139)])
async def test_a_program_ended_by_a_signal_exits_with_128_plus_its_number(bench: Bench, signal: str, code: int) -> None:
    assert (await bench.run(f"kill -{signal} $$")).code == code


async def test_a_program_is_killed_at_its_timeout_and_its_changes_stored(bench: Bench) -> None:
    ran = await bench.run("echo begun; sleep 1000; : MARKER", timeout_s=3)
    assert (ran.code, ran.execution.timed_out, ran.out) == (None, True, "begun\n")
    assert not bench.alive()
    assert bench.files.stored == 1


async def test_a_timeout_kills_the_whole_tree(bench: Bench) -> None:
    ran = await bench.run(DAEMON, "python", timeout_s=1)
    assert ran.execution.timed_out
    assert not bench.alive()


async def test_daemons_are_killed_when_the_program_ends(bench: Bench) -> None:
    ran = await bench.run(DAEMON.replace("time.sleep(3600)", "time.sleep(0.3)"), "python")
    assert ran.code == 0
    assert not bench.alive()


async def test_a_cancellation_kills_the_whole_tree(bench: Bench) -> None:
    running = await bench.start(DAEMON)
    assert bench.alive()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not bench.alive()
    assert bench.files.stored == 0


async def test_a_cancellation_kills_a_stopped_program(bench: Bench) -> None:
    running = await bench.start("import os, signal\nprint('up')\nos.kill(os.getpid(), signal.SIGSTOP)\n'MARKER'")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_cancellation_kills_a_fork_bomb(bench: Bench) -> None:
    source = "import os, time\nprint('up')\nwhile True:\n    try: os.fork()\n    except OSError: time.sleep(0.01)\n"
    running = await bench.start(source)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
