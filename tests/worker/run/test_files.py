"""Workspace of a run: the changes of a step are committed with the end of the step, or discarded."""

import asyncio

import pytest

from infra.contract.journal import blob_ref
from infra.contract.states import Status
from infra.workspace import Workspaces
from tests.worker.rig import Rig
from worker.run import context as worker_context
from worker.toolkit.base import ToolContext, ToolFailed


class Appender:
    """Tool that appends its command to a file, and then blocks within the step if the command begins with `hold`."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.written = asyncio.Event()

    async def __call__(self, context: ToolContext, command: str) -> None:
        files = {file.path for file in await context.files.list()}
        before = await context.files.read("log.txt") if "log.txt" in files else b""
        await context.files.write("log.txt", before + command.encode() + b"\n")
        if command.startswith("hold"):
            self.written.set()
            await self.go.wait()
        if command == "fail":
            raise ToolFailed("exit_code", "exit code 1")


async def content(rig: Rig, workspaces: Workspaces, run_id: str) -> bytes:
    files = workspaces.run("ada", run_id, 0, await rig.store.files(run_id))
    return await files.read("log.txt")


async def test_an_interrupted_step_is_repeated_on_the_workspace_before_it(rig: Rig, workspaces: Workspaces) -> None:
    tool = Appender()
    first = rig.worker(tool, workspaces=workspaces)
    run_id = await rig.submit("one", "hold", "three")
    await asyncio.wait_for(tool.written.wait(), 20)
    assert await content(rig, workspaces, run_id) == b"one\n"
    await first.killed()
    await rig.expire_lease(run_id)
    tool.go.set()
    rig.worker(tool, workspaces=workspaces)
    assert (await rig.ended(run_id)).status is Status.SUCCEEDED
    assert await content(rig, workspaces, run_id) == b"one\nhold\nthree\n"


async def test_files_written_by_a_failed_step_are_kept(rig: Rig, workspaces: Workspaces) -> None:
    rig.worker(Appender(), workspaces=workspaces)
    run_id = await rig.submit("one", "fail")
    assert (await rig.ended(run_id)).status is Status.FAILED
    assert await content(rig, workspaces, run_id) == b"one\nfail\n"


async def test_files_written_by_a_cancelled_step_are_discarded(rig: Rig, workspaces: Workspaces) -> None:
    tool = Appender()
    rig.worker(tool, workspaces=workspaces)
    run_id = await rig.submit("one", "hold")
    await asyncio.wait_for(tool.written.wait(), 20)
    await rig.store.cancel(run_id)
    assert (await rig.ended(run_id)).status is Status.CANCELLED
    assert await content(rig, workspaces, run_id) == b"one\n"


async def test_a_large_result_is_stored_outside_the_journal(
    rig: Rig, workspaces: Workspaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_context, "MAX_INLINE_BYTES", 10)
    tool = Appender()
    first = rig.worker(tool, workspaces=workspaces)
    run_id = await rig.submit("one", "hold")
    await asyncio.wait_for(tool.written.wait(), 20)
    fields = await rig.redis.command("HGET", f"run:{run_id}", "journal:step:0")
    assert str(fields).startswith('{"$kept":"kept/1-')
    ref = blob_ref(str(fields).encode())
    assert ref
    assert ref.times
    began = next(event for event in await rig.log(run_id) if event.type == "step.started")
    assert began.ts - 1000 < (ref.times.started_ms or 0) <= began.ts + 1000
    assert ref.times.duration_ms is not None
    await first.killed()
    await rig.expire_lease(run_id)
    tool.go.set()
    rig.worker(tool, workspaces=workspaces)
    assert (await rig.ended(run_id)).status is Status.SUCCEEDED
    assert await content(rig, workspaces, run_id) == b"one\nhold\n"
    assert (await rig.kinds(run_id)).count("step.finished") == 2
