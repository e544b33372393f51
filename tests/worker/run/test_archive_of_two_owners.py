"""Archive of a run that two workers claimed with the same fence, because Redis had lost the first claim."""

import asyncio
from collections.abc import Sequence

import pytest

from infra.contract.log import Event, Segment
from infra.contract.runs import RunHead
from infra.contract.states import Status
from infra.workspace import Workspaces
from tests.support.waiting import until
from tests.worker.rig import Rig, ToolBody
from worker.run import archiver
from worker.toolkit.base import ToolContext


def printing(name: str) -> ToolBody:
    async def body(context: ToolContext, command: str) -> None:
        await context.output("stdout", name)

    return body


async def test_a_late_upload_of_the_first_owner_does_not_replace_the_log_of_the_second(
    rig: Rig, workspaces: Workspaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archiver, "MIN_ARCHIVE_BYTES", 0)
    uploading, second_is_done, uploaded = asyncio.Event(), asyncio.Event(), asyncio.Event()
    store = workspaces.logs.store

    async def late(run: RunHead, segment: Segment, events: Sequence[Event]) -> None:
        is_first = not uploading.is_set()
        uploading.set()
        if is_first:
            await second_is_done.wait()
        await store(run, segment, events)
        if is_first:
            uploaded.set()

    monkeypatch.setattr(workspaces.logs, "store", late)
    run_id = await rig.submit("x")
    key = rig.store.keys.run(run_id)
    before = await rig.redis.command("HGETALL", key)
    assert isinstance(before, list)
    rig.worker(printing("first"), workspaces=workspaces)
    await uploading.wait()
    await rig.redis.command("DEL", key, rig.store.keys.log(run_id))
    await rig.redis.command("HSET", key, *map(str, before))
    await rig.redis.command("ZADD", rig.store.keys.ready, 1, run_id)
    rig.worker(printing("second"), workspaces=workspaces)

    async def archived() -> bool:
        return (await rig.store.log(run_id)).archived > 0

    await until(archived, "the second owner has archived the log")
    second_is_done.set()
    await uploaded.wait()

    log = await rig.store.log(run_id)
    assert log.status is Status.SUCCEEDED
    (segment,) = log.segments
    events = [event async for batch in workspaces.logs.read(log, segment, after=0) for event in batch]
    assert [event.data["text"] for event in events if event.type == "tool.output"] == ["second"]
