"""Executor without a sandbox, for development: warns, and kills the process tree all the same."""

import asyncio
import logging

import pytest

from infra.contract.execution import ExecLimits
from tests.local_executor.rig import DAEMON, MB, Bench


async def test_every_call_logs_a_warning(unsafe: Bench, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(3):
        assert (await unsafe.run("echo x; exit 3", call=f"step-{number}")).code == 3
    warnings = [record for record in caplog.records if record.message == "tool.unsandboxed"]
    assert [record.levelno for record in warnings] == [logging.WARNING] * 3
    assert [record.fields["call"] for record in warnings] == ["step-0", "step-1", "step-2"]  # type: ignore[attr-defined]


async def test_a_call_with_sandbox_logs_no_warning(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    await bench.run("true")
    assert not caplog.records


async def test_each_interpreter_works(unsafe: Bench) -> None:
    await unsafe.executor.check()
    assert (await unsafe.run("pwd; echo $HOME")).out == f"{unsafe.files.directory}\n" * 2
    assert (await unsafe.run("print('py')", "python")).out == "py\n"
    assert (await unsafe.run("echo ${BASH_VERSION:+bash}", "bash")).out == "bash\n"
    assert (await unsafe.run("kill -9 $$")).code == 137


async def test_the_environment_of_the_worker_is_not_inherited(unsafe: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3_SECRET_KEY", "very-secret")
    assert "very-secret" not in (await unsafe.run("env")).out


async def test_timeout_and_cancellation_kill_the_whole_tree(unsafe: Bench) -> None:
    ran = await unsafe.run(DAEMON, "python", timeout_s=1)
    assert ran.execution.timed_out
    assert not unsafe.alive()
    running = await unsafe.start(DAEMON)
    assert unsafe.alive()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not unsafe.alive()


async def test_daemons_are_killed_when_the_program_ends(unsafe: Bench) -> None:
    ran = await unsafe.run(DAEMON.replace("time.sleep(3600)", "raise SystemExit(6)"), "python", timeout_s=100)
    assert (ran.code, ran.execution.timed_out) == (6, False)
    assert not unsafe.alive()


async def test_cancellations_during_the_start_leave_no_process(unsafe: Bench) -> None:
    for number in range(15):
        running = asyncio.ensure_future(unsafe.run(DAEMON, "python"))
        await asyncio.sleep(number * 0.007)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert not unsafe.alive()


async def test_memory_and_file_limits_hold(unsafe: Bench) -> None:
    limits = ExecLimits(memory_bytes=128 * MB, file_bytes=MB)
    ran = await unsafe.run("x = bytearray(3 * 1024 ** 3)", "python", limits=limits)
    assert "MemoryError" in ran.err
    assert (
        await unsafe.run("trap '' XFSZ; head -c 9M /dev/zero > big; stat -c %s big", limits=limits)
    ).out == f"{MB}\n"
