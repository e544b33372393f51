"""Exhausted host: the worker releases its runs, and fails none of them before its last attempt."""

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.contract.errors import HostExhausted
from infra.contract.states import Status
from infra.local_executor import LocalExecutor
from infra.scratch_root import ScratchRoot
from infra.workspace import Workspaces
from tests.support.small_disk import fill, small_disk
from tests.support.waiting import until
from tests.worker.rig import Rig
from worker.queue import loop
from worker.toolkit.base import ToolContext, ToolResult
from worker.toolkit.execution import execute

MANY = 20
"""More attempts than are used while a test frees space."""


@pytest.fixture(autouse=True)
def _short_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "HOST_BACKOFF_S", 0.1)


async def run_it(context: ToolContext, command: str) -> ToolResult:
    """Execute the command as the tool `shell` does."""
    return await execute(context, "sh", command, 60)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "1m", files=60) as folder:
        yield folder


@pytest.fixture
def executor(disk: Path) -> Iterator[LocalExecutor]:
    made = LocalExecutor(ScratchRoot(disk / "scratch"))
    yield made
    made.close()


async def reasons(rig: Rig, run_id: str) -> list[object]:
    """Return the reasons for which the run was requeued."""
    return [event.data["reason"] for event in await rig.log(run_id) if event.type == "run.requeued"]


def take_files(disk: Path) -> list[Path]:
    """Use up all inodes of the disk, so that no folder can be created; return the files."""
    made = []
    try:
        for number in range(100):
            (disk / f"file-{number}").touch()
            made.append(disk / f"file-{number}")
    except OSError:
        return made
    raise AssertionError("the disk has more inodes than its limit")


@pytest.mark.parametrize("full_of", ["bytes", "files"])
async def test_a_run_that_meets_a_full_disk_succeeds_once_there_is_space(
    rig: Rig, workspaces: Workspaces, executor: LocalExecutor, disk: Path, full_of: str
) -> None:
    ballast = [fill(disk)] if full_of == "bytes" else take_files(disk)
    rig.worker(run_it, workspaces=workspaces, executor=executor)
    run_id = await rig.submit("seq 1 5; echo x > made", max_attempts=MANY)

    async def requeued() -> bool:
        return bool(await reasons(rig, run_id))

    await until(requeued, "the run is requeued")
    for file in ballast:
        file.unlink()
    run = await rig.ended(run_id)
    assert run.status is Status.SUCCEEDED, run.error
    assert run.attempt > 1
    assert set(await reasons(rig, run_id)) == {"worker_short"}
    files = workspaces.run("ada", run_id, 0, await rig.store.files(run_id))
    assert await files.read("made") == b"x\n"


async def test_a_run_whose_files_do_not_fit_on_the_disk_is_requeued(
    rig: Rig, workspaces: Workspaces, executor: LocalExecutor, disk: Path
) -> None:
    async def body(context: ToolContext, command: str) -> ToolResult | None:
        if command == "write":
            await context.files.write("large", b"x" * 100_000)
            return None
        return await run_it(context, command)

    ballast = fill(disk)
    rig.worker(body, workspaces=workspaces, executor=executor)
    run_id = await rig.submit("write", "wc -c < large > counted", max_attempts=MANY)

    async def requeued() -> bool:
        return bool(await reasons(rig, run_id))

    await until(requeued, "the run is requeued")
    ballast.unlink()
    run = await rig.ended(run_id)
    assert (run.status, set(await reasons(rig, run_id))) == (Status.SUCCEEDED, {"worker_short"})
    assert [event.step for event in await rig.log(run_id) if event.type == "step.finished"] == [0, 1]


async def test_the_last_attempt_fails_with_the_missing_resource(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    message = "the worker's host is short of memory: Cannot allocate memory"

    async def body(context: ToolContext, command: str) -> None:
        raise HostExhausted(message)

    rig.worker(body)
    run_id = await rig.submit("x", max_attempts=2)
    run = await rig.ended(run_id)
    assert run.error
    assert (run.status, run.attempt) == (Status.FAILED, 2)
    assert (run.error.code, run.error.message) == ("worker_short", message)
    assert await reasons(rig, run_id) == ["worker_short"]
    (event,) = [event.data for event in await rig.log(run_id) if event.type == "run.requeued"]
    assert 0 <= event["delay_ms"] <= 2000
    logged = [record.fields for record in caplog.records if record.message == "run.host_failure"]  # type: ignore[attr-defined]
    assert [(one["code"], one["reason"]) for one in logged] == [("worker_short", message)] * 2
    assert "run.broken" not in {record.message for record in caplog.records}


async def test_a_worker_without_resources_leaves_the_queue_to_others(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the worker would use up the attempts of every run in the queue."""
    monkeypatch.setattr(loop, "HOST_BACKOFF_S", 600.0)

    async def short(context: ToolContext, command: str) -> None:
        raise HostExhausted("no room")

    async def well(context: ToolContext, command: str) -> None:
        return

    exhausted = rig.worker(short)
    first = await rig.ended(await rig.submit("a", max_attempts=1))
    assert first.error
    assert first.error.code == "worker_short"

    async def is_idle() -> bool:
        return len(exhausted.keeper) == 0

    await until(is_idle, "the worker has no run")
    others = [await rig.submit("b") for _ in range(5)]
    await asyncio.sleep(0.3)
    rig.worker(well)
    for run_id in others:
        assert (await rig.ended(run_id)).status is Status.SUCCEEDED
        assert [attempt.worker for attempt in await rig.store.attempts(run_id)] == ["w1"]
