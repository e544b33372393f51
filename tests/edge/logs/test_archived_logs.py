"""Logs that are archived in part or completely are read as one log, with every event once and in order."""

import asyncio
from dataclasses import replace

import httpx
import pytest
from msgspec import json

from edge_api.http.response_models import StreamEnd
from edge_api.logs.fanout import Fanout
from edge_api.logs.pages import LogPages
from edge_api.logs.reader import LogReader
from infra.contract.log import Event
from infra.contract.states import Status
from infra.settings import RedisRestSettings, S3Settings
from infra.workspace import Workspaces
from tests.edge.logs.archiving import ArchivingWorker
from tests.edge.logs.reading import read_all
from tests.edge.stack import Edge, SimulatedWorker, client, create, follow, note, numbers, serve, stream
from tests.support.waiting import until


@pytest.fixture
def edge(stored_edge: Edge) -> Edge:
    return stored_edge


async def pages(http: httpx.AsyncClient, run_id: str, limit: int) -> list[int]:
    """Return the sequence numbers of a log that is read in pages."""
    seqs: list[int] = []
    after = 0
    while True:
        answer = await http.get(f"/agent/logs/{run_id}", params={"after": after, "limit": limit})
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert "gap" not in body
        seqs += [event["seq"] for event in body["events"]]
        after = body["next_after"]
        if body["done"] or not body["events"]:
            return seqs


async def commands(worker: SimulatedWorker) -> int:
    """Count the commands that Redis has executed, except this one and the gateway's own."""
    info = str(await worker.redis.command("INFO", "commandstats"))
    lines = [line.partition(":calls=") for line in info.splitlines() if line.startswith("cmdstat_")]
    own = {"cmdstat_info", "cmdstat_ping"}
    return sum(int(rest.partition(",")[0]) for name, _, rest in lines if name not in own)


@pytest.mark.parametrize("lasts", [(1,), (4,), (3, 6), (1, 2, 7), (12,), (5, 12)])
async def test_archive_and_stream_are_read_as_one_log(
    ada: httpx.AsyncClient, archiving: ArchivingWorker, lasts: tuple[int, ...]
) -> None:
    run_id = await create(ada)
    await archiving.complete(events=10)
    await archiving.archive(run_id, *lasts)
    for after in range(12):
        seen = await follow(ada, run_id, after=after)
        assert numbers(seen) == list(range(after + 1, 13))
        assert seen[-1].event == "end"
    for limit in (1, 5, 1000):
        assert await pages(ada, run_id, limit) == list(range(1, 13))


async def test_archived_events_equal_the_live_ones_byte_by_byte(
    ada: httpx.AsyncClient, archiving: ArchivingWorker
) -> None:
    run_id = await create(ada)
    async with stream(ada, run_id) as events:
        lease = await archiving.claim()
        await archiving.emit(lease, note(1, text="line one\nline two \u2028 é 😀", nested={"a": [1, None, 2.5, True]}))
        await archiving.emit(lease, note(2))
        await archiving.finish(lease)
        live = [event async for event in events]
    await archiving.archive(run_id, 2, 4)
    replayed = await follow(ada, run_id)
    assert [(event.event, event.id, event.data) for event in replayed] == [
        (event.event, event.id, event.data) for event in live
    ]


async def test_a_finished_archived_log_of_any_length_costs_one_command(
    ada: httpx.AsyncClient, archiving: ArchivingWorker
) -> None:
    run_id = await create(ada)
    lease = await archiving.claim()
    for number in range(20):
        await archiving.emit(lease, *(note(number) for _ in range(50)))
    await archiving.finish(lease)
    await archiving.archive(run_id, 500, 1002)
    before = await commands(archiving)
    assert numbers(await follow(ada, run_id)) == list(range(1, 1003))
    assert await commands(archiving) - before == 1


async def test_archiving_does_not_disturb_a_follower(
    ada: httpx.AsyncClient, archiving: ArchivingWorker, edge: Edge
) -> None:
    run_id = await create(ada)
    lease = await archiving.claim()
    for number in range(9):
        await archiving.emit(lease, note(number))
    async with stream(ada, run_id) as events:
        seen = [await anext(events) for _ in range(10)]
        await archiving.archive(run_id, 4, 8)
        await archiving.emit(lease, note(10))
        seen.append(await anext(events))
        async with stream(ada, run_id, after=2) as late:
            assert numbers([await anext(late) for _ in range(9)]) == list(range(3, 12))
            await archiving.archive(run_id, 11)
            await archiving.finish(lease)
            assert numbers([event async for event in late]) == [12]
        seen += [event async for event in events]
    assert numbers(seen) == list(range(1, 13))


async def test_events_archived_after_the_record_was_read_are_found(
    archiving: ArchivingWorker, edge: Edge, ada: httpx.AsyncClient
) -> None:
    run_id = await create(ada)
    await archiving.complete(events=10)
    old = await archiving.store.log(run_id)
    await archiving.archive(run_id, 6)
    reader: LogReader = LogReader(archiving.store, Fanout(edge.feed), archiving.workspaces.logs)
    items = await read_all(reader.follow(old, 0))
    assert [item.seq for item in items if isinstance(item, Event)] == list(range(1, 13))
    pages_of_old = LogPages(archiving.store, archiving.workspaces.logs)
    assert [event.seq for event in (await pages_of_old.forwards(old, 2, 100)).events] == list(range(3, 13))


async def test_a_missing_segment_is_a_gap(ada: httpx.AsyncClient, archiving: ArchivingWorker) -> None:
    run_id = await create(ada)
    await archiving.complete(events=10)
    segments = await archiving.archive(run_id, 4, 8)
    await archiving.workspaces.logs.discard(await archiving.store.log(run_id), segments[1])
    seen = await follow(ada, run_id)
    assert numbers(seen) == [1, 2, 3, 4, 9, 10, 11, 12]
    (gap,) = [event for event in seen if event.event == "gap"]
    assert (gap.id, json.decode(gap.data)) == ("8", {"first": 5, "last": 8})
    first = (await ada.get(f"/agent/logs/{run_id}")).json()
    assert [event["seq"] for event in first["events"]] == [1, 2, 3, 4]
    second = (await ada.get(f"/agent/logs/{run_id}", params={"after": first["next_after"]})).json()
    assert second["gap"] == {"first": 5, "last": 8}
    assert [event["seq"] for event in second["events"]] == [9, 10, 11, 12]
    assert second["done"]


async def test_a_run_deleted_while_its_archive_is_read_ends_the_stream(
    ada: httpx.AsyncClient, archiving: ArchivingWorker, edge: Edge
) -> None:
    run_id = await create(ada)
    await archiving.complete(events=10)
    await archiving.archive(run_id, 4, 12)
    old = await archiving.store.log(run_id)
    assert (await ada.delete(f"/agent/runs/{run_id}")).status_code == 204
    assert await archiving.workspaces.delete_run("ada", run_id) == 0
    reader = LogReader(archiving.store, Fanout(edge.feed), archiving.workspaces.logs)
    assert await read_all(reader.follow(old, 0)) == []
    assert (await ada.get(f"/agent/logs/{run_id}")).status_code == 404


async def test_an_object_store_outage_makes_a_page_503_and_a_stream_wait(
    rest_settings: RedisRestSettings, archiving: ArchivingWorker, s3_settings: S3Settings
) -> None:
    wrong = Workspaces(replace(s3_settings, secret_key="wrong"))
    async with serve(rest_settings, wrong) as edge, client(edge, "ada") as http:
        run_id = await create(http)
        await archiving.complete(events=10)
        await archiving.archive(run_id, 12)
        answer = await http.get(f"/agent/logs/{run_id}")
        assert (answer.status_code, answer.json()["type"]) == (503, "urn:swissbrain:problem:files-unavailable")
        following = asyncio.create_task(follow(http, run_id))

        async def waiting() -> bool:
            return edge.streams == 1

        await until(waiting, "the stream waits")
        assert not following.done()
        wrong.logs._bucket = archiving.workspaces.logs._bucket
        assert numbers(await following) == list(range(1, 13))
    await asyncio.to_thread(wrong.close)


async def test_the_archive_of_a_retried_run_continues(ada: httpx.AsyncClient, archiving: ArchivingWorker) -> None:
    run_id = await create(ada)
    await archiving.complete(events=3, status=Status.FAILED)
    await archiving.archive(run_id, 5)
    assert (await ada.post(f"/agent/runs/{run_id}/retry")).status_code == 200
    await archiving.complete(events=3)
    assert numbers(await follow(ada, run_id)) == list(range(1, 12))
    await archiving.archive(run_id, 11)
    assert numbers(await follow(ada, run_id, after=4)) == list(range(5, 12))


async def test_a_run_that_ends_and_is_archived_while_a_follower_subscribes_is_read_to_its_end(
    ada: httpx.AsyncClient, archiving: ArchivingWorker, edge: Edge
) -> None:
    run_id = await create(ada)
    lease = await archiving.claim()
    await archiving.emit(lease, note(2))
    old = await archiving.store.log(run_id)
    await archiving.emit(lease, note(3))
    await archiving.finish(lease)
    await archiving.archive(run_id, 4)
    reader = LogReader(archiving.store, Fanout(edge.feed), archiving.workspaces.logs)
    async with asyncio.timeout(60):
        items = await read_all(reader.follow(old, 2))
    assert [item.seq for item in items if isinstance(item, Event)] == [3, 4]
    assert isinstance(items[-1], StreamEnd)
