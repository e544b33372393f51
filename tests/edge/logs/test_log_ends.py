"""A followed log ends, even if reads lag behind messages, or if the run has been deleted."""

import asyncio

import httpx
import pytest

from edge_api.http.response_models import StreamEnd
from edge_api.logs import backoff
from edge_api.logs import reader as log_reader
from edge_api.logs.fanout import Fanout
from edge_api.logs.limits import ENOUGH_BYTES
from edge_api.logs.reader import LogReader
from edge_api.logs.stored import LAG_TRIES
from infra.contract.log import Event, RunLog
from infra.contract.queue import Lease
from infra.contract.runs import RunSpec
from infra.contract.states import Status
from tests.edge.logs.reading import RUN, EndOfLog, ScriptedFeed, read_all, watching
from tests.edge.stack import SimulatedWorker, create, note
from tests.support.archive import NoArchive
from tests.support.waiting import until

FINISHED = '{"first":%d,"events":[{"ts":1,"type":"run.finished"}]}'


@pytest.fixture(autouse=True)
def short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "RETRY_FIRST_S", 0.001)
    monkeypatch.setattr(backoff, "RETRY_LAST_S", 0.01)


async def test_a_follower_waits_for_a_record_that_lags_behind_its_log(
    worker: SimulatedWorker, lease: Lease, feed: ScriptedFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, lags = worker.store.log, 3 * LAG_TRIES
    stale = await read(RUN)

    async def lagging(run_id: str) -> RunLog:
        nonlocal lags
        lags -= 1
        return stale if lags >= 0 else await read(run_id)

    async with watching(worker.store, feed) as reader:
        assert await reader.seqs(1) == [1]
        await feed.subscribed()
        monkeypatch.setattr(worker.store, "log", lagging)
        await worker.finish(lease)
        feed.publish(FINISHED % 2)
        assert await reader.seqs(1) == [2]
        assert await reader.take(1) == [StreamEnd(status=Status.SUCCEEDED, last_seq=2)]
    assert lags < 0


async def test_a_quiet_follower_reads_back_once_more_after_it_has_subscribed(
    worker: SimulatedWorker, lease: Lease, feed: ScriptedFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_reader, "QUIET_S", 0.1)
    read, lags = worker.store.read, 2

    async def lagging(run_id: str, *, after: int) -> tuple[list[Event], bool]:
        nonlocal lags
        lags -= 1
        events, more = await read(run_id, after=after)
        return ([event for event in events if event.seq == 1], False) if lags >= 0 else (events, more)

    monkeypatch.setattr(worker.store, "read", lagging)
    async with watching(worker.store, feed) as reader:
        await worker.finish(lease)
        assert await reader.seqs(2) == [1, 2]
        assert await reader.take(1) == [StreamEnd(status=Status.SUCCEEDED, last_seq=2)]


@pytest.mark.parametrize("missed", [True, False])
async def test_a_run_that_is_deleted_while_it_is_followed_ends_its_stream(
    worker: SimulatedWorker, lease: Lease, feed: ScriptedFeed, missed: bool
) -> None:
    """The deletion is published, or found by a follower that subscribes again."""
    async with watching(worker.store, feed) as reader:
        assert await reader.seqs(1) == [1]
        await feed.subscribed()
        await worker.redis.command("DEL", f"run:{RUN}", f"run:{RUN}:log")
        if missed:
            feed.die()
        else:
            feed.publish("deleted")
        with pytest.raises(EndOfLog):
            await reader.take(1)


async def test_another_run_of_the_same_id_is_not_followed(
    worker: SimulatedWorker, lease: Lease, feed: ScriptedFeed
) -> None:
    async with watching(worker.store, feed) as reader:
        assert await reader.seqs(1) == [1]
        await feed.subscribed()
        created_ms = (await worker.store.log(RUN)).created_ms
        await worker.redis.command("DEL", f"run:{RUN}", f"run:{RUN}:log")

        async def is_made_later() -> bool:
            await worker.redis.command("DEL", f"run:{RUN}")
            await worker.store.create(RUN, "ada", RunSpec(prompt="x"), start=True, digest="d")
            return (await worker.store.log(RUN)).created_ms > created_ms

        await until(is_made_later, "the run is created in a later millisecond")
        feed.die()
        with pytest.raises(EndOfLog):
            await reader.take(1)


async def test_the_stream_of_a_run_that_never_started_ends_with_its_deletion(ada: httpx.AsyncClient) -> None:
    run_id = await create(ada, start=False)
    async with ada.stream("GET", f"/agent/logs/{run_id}/stream") as answer:
        lines = answer.aiter_lines()
        while await anext(lines) != ": ping":
            pass
        assert (await ada.delete(f"/agent/runs/{run_id}")).status_code == 204
        assert "end" not in [line async for line in lines]
    assert (await ada.get(f"/agent/logs/{run_id}/stream")).status_code == 404


async def test_a_position_beyond_the_end_is_the_end(worker: SimulatedWorker, lease: Lease, feed: ScriptedFeed) -> None:
    """The run was deleted and created again under the same id, so the client has seen more events than it will have."""
    async with watching(worker.store, feed, after=1000) as reader:
        await feed.subscribed()
        await worker.finish(lease)
        feed.publish(FINISHED % 2)
        assert await reader.take(1) == [StreamEnd(status=Status.SUCCEEDED, last_seq=2)]


async def test_a_position_beyond_the_end_of_a_run_that_ended_before_the_subscription_is_the_end(
    worker: SimulatedWorker, lease: Lease, feed: ScriptedFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No message will arrive; only the record shows the end."""
    monkeypatch.setattr(log_reader, "LOOK_S", 0.0)
    outdated = await worker.store.log(RUN)
    await worker.finish(lease)
    fanout = Fanout(feed)
    async with asyncio.timeout(60):
        items = await read_all(LogReader(worker.store, fanout, NoArchive()).follow(outdated, 1000))
    assert items == [StreamEnd(status=Status.SUCCEEDED, last_seq=2)]
    await fanout.close()


async def test_a_page_beyond_the_end_is_done(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    run_id = await create(ada)
    await worker.complete(events=1)
    page = (await ada.get(f"/agent/logs/{run_id}", params={"after": 1000})).json()
    assert (page["events"], page["done"], page["next_after"]) == ([], True, 1000)


async def test_a_page_is_no_larger_than_a_lambda_response_may_be(
    ada: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    run_id = await create(ada)
    lease = await worker.claim()
    text = "é" * 7000
    for first in range(0, 240, 4):
        await worker.emit(lease, *[note(number, text=text) for number in range(first, first + 4)])
    await worker.finish(lease)
    seqs: list[int] = []
    pages = 0
    done = False
    while not done:
        answer = await ada.get(f"/agent/logs/{run_id}", params={"after": seqs[-1] if seqs else 0, "limit": 1000})
        assert len(answer.content) < ENOUGH_BYTES + 20_000
        page = answer.json()
        seqs += [event["seq"] for event in page["events"]]
        done = page["done"]
        pages += 1
    assert seqs == [*range(1, 243)]
    assert pages == 4
