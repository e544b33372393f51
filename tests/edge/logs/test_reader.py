"""A follower gives out every event once, although its upstream loses, repeats, reorders or damages messages."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_api.http.response_models import Gap, StreamEnd
from edge_api.logs import backoff
from edge_api.logs.fanout import Fanout
from edge_api.logs.position import Position
from infra.contract.errors import StoreUnavailable
from infra.contract.log import Event, RunLog
from infra.contract.queue import Lease
from infra.contract.runs import Brief
from infra.contract.states import Status
from tests.edge.logs.reading import RUN, ScriptedFeed, batch, reading, watching
from tests.edge.stack import SimulatedWorker, note

BEGUN = RunLog(
    id=RUN,
    user="ada",
    status=Status.RUNNING,
    brief=Brief(title="x"),
    attempt=1,
    seq=1,
    cancel=False,
    created_ms=1,
    queued_ms=1,
    started_ms=1,
    finished_ms=None,
    error=None,
    deleting=False,
)


async def test_repeats_and_damaged_messages_change_nothing(
    worker: SimulatedWorker, lease: Lease, feed: ScriptedFeed
) -> None:
    async with watching(worker.store, feed) as reader:
        assert await reader.seqs(1) == [1]
        await feed.subscribed()
        await worker.emit(lease, note(1), note(2))
        feed.publish(batch(1))
        feed.publish(batch(2, 2))
        feed.publish(batch(2, 2))
        feed.publish(batch(1, 3))
        assert await reader.seqs(2) == [2, 3]
        await worker.emit(lease, note(3))
        for damaged in ('{"first":4,"events":[{"ts":1,"ty', "", "null", '{"first":"x","events":[]}'):
            feed.publish(damaged)
        assert await reader.seqs(1) == [4]
        await worker.finish(lease)
        feed.publish("half a line")
        assert await reader.seqs(1) == [5]
        assert await reader.take(1) == [StreamEnd(status=Status.SUCCEEDED, last_seq=5)]


async def test_a_lost_message_is_read_from_the_stream(
    worker: SimulatedWorker, lease: Lease, feed: ScriptedFeed
) -> None:
    async with watching(worker.store, feed) as reader:
        assert await reader.seqs(1) == [1]
        await feed.subscribed()
        for number in range(2, 6):
            await worker.emit(lease, note(number))
        feed.publish(batch(5))
        assert await reader.seqs(4) == [2, 3, 4, 5]


async def test_messages_out_of_order_come_in_order(worker: SimulatedWorker, lease: Lease, feed: ScriptedFeed) -> None:
    async with watching(worker.store, feed) as reader:
        assert await reader.seqs(1) == [1]
        await feed.subscribed()
        await worker.emit(lease, note(2))
        await worker.emit(lease, note(3))
        feed.publish(batch(3))
        feed.publish(batch(2))
        assert await reader.seqs(2) == [2, 3]


async def test_a_follower_waits_for_a_stream_that_lags_behind_its_channel(
    worker: SimulatedWorker, lease: Lease, feed: ScriptedFeed
) -> None:
    async with watching(worker.store, feed) as reader:
        assert await reader.seqs(1) == [1]
        await feed.subscribed()
        feed.publish(batch(3))
        coming = asyncio.create_task(reader.seqs(2))
        await asyncio.sleep(0)
        await worker.emit(lease, note(2), note(3))
        assert await coming == [2, 3]


async def test_a_hole_that_cannot_be_filled_is_a_gap(
    worker: SimulatedWorker, lease: Lease, feed: ScriptedFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backoff, "RETRY_FIRST_S", 0.001)
    async with watching(worker.store, feed) as reader:
        assert await reader.seqs(1) == [1]
        await feed.subscribed()
        feed.publish(batch(4, 2))
        gap, *rest = await reader.take(3)
        assert gap == Gap(first=2, last=3)
        assert [item.seq for item in rest if isinstance(item, Event)] == [4, 5]
        feed.publish(batch(6))
        assert await reader.seqs(1) == [6]


async def test_an_early_event_whose_hole_is_filled_comes_without_a_gap(
    worker: SimulatedWorker, lease: Lease, feed: ScriptedFeed
) -> None:
    """Event 3 is published, but a lagging replica shows only event 2."""
    async with watching(worker.store, feed) as reader:
        assert await reader.seqs(1) == [1]
        await feed.subscribed()
        await worker.emit(lease, note(2))
        feed.publish(batch(3))
        items = await reader.take(2)
        assert [item.seq for item in items if isinstance(item, Event)] == [2, 3]


async def test_an_upstream_that_dies_is_replaced_and_nothing_is_missed(
    worker: SimulatedWorker, lease: Lease, feed: ScriptedFeed
) -> None:
    async with watching(worker.store, feed) as reader:
        assert await reader.seqs(1) == [1]
        await feed.subscribed()
        feed.failures = 2
        feed.die()
        await worker.emit(lease, note(2))
        assert await reader.seqs(1) == [2]
        coming = asyncio.create_task(reader.seqs(1))
        await feed.subscribed(2)
        await worker.emit(lease, note(3))
        feed.publish(batch(3))
        assert await coming == [3]
        feed.die()
        await worker.finish(lease)
        assert await reader.seqs(1) == [4]
        assert await reader.take(1) == [StreamEnd(status=Status.SUCCEEDED, last_seq=4)]


async def test_a_terminal_event_that_is_not_the_last_does_not_end_the_stream(
    worker: SimulatedWorker, lease: Lease, feed: ScriptedFeed
) -> None:
    async with watching(worker.store, feed) as reader:
        assert await reader.seqs(1) == [1]
        await feed.subscribed()
        await worker.finish(lease, Status.FAILED)
        await worker.store.retry(RUN, token="t")
        feed.publish('{"first":2,"events":[{"ts":1,"type":"run.finished"}]}')
        assert await reader.seqs(1) == [2]
        feed.publish('{"first":3,"events":[{"ts":1,"type":"run.retried"}]}')
        assert await reader.seqs(1) == [3]
        await worker.complete(events=0)
        feed.publish(batch(4, 2))
        assert await reader.seqs(2) == [4, 5]


async def test_an_outage_between_the_terminal_event_and_the_end_only_delays_the_end(
    worker: SimulatedWorker, lease: Lease, feed: ScriptedFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, outages = worker.store.log, 3

    async def failing(run_id: str) -> RunLog:
        nonlocal outages
        if outages:
            outages -= 1
            raise StoreUnavailable("Redis is away")
        return await log(run_id)

    async with watching(worker.store, feed) as reader:
        assert await reader.seqs(1) == [1]
        await feed.subscribed()
        monkeypatch.setattr(worker.store, "log", failing)
        await worker.finish(lease)
        feed.publish('{"first":2,"events":[{"ts":1,"type":"run.finished"}]}')
        assert await reader.seqs(1) == [2]
        assert await reader.take(1) == [StreamEnd(status=Status.SUCCEEDED, last_seq=2)]
    assert not outages


async def test_a_client_that_is_too_slow_for_the_channel_continues_from_the_stream(
    worker: SimulatedWorker, lease: Lease, feed: ScriptedFeed
) -> None:
    fanout = Fanout(feed, inbox_chars=200)
    async with reading(worker.store, fanout) as slow, reading(worker.store, fanout) as fast:
        assert await slow.seqs(1) == await fast.seqs(1) == [1]
        await feed.subscribed()
        await worker.emit(lease, note(2))
        feed.publish(batch(2))
        assert await slow.seqs(1) == [2]
        for number in range(3, 40):
            await worker.emit(lease, note(number))
            feed.publish(batch(number))
            assert await fast.seqs(1 if number > 3 else 2) in ([number], [2, 3])
        assert await slow.seqs(37) == list(range(3, 40))
    await fanout.close()
    assert len(feed.queues) == 1


@given(st.lists(st.integers(1, 12), max_size=40), st.integers(0, 5))
def test_events_in_any_order_are_given_out_once_and_in_order(seqs: list[int], after: int) -> None:
    position = Position(BEGUN, after)
    given_out: list[int] = []
    for start in range(0, len(seqs), 3):
        events = [Event(seq=seq, ts=1, type="log") for seq in seqs[start : start + 3]]
        given_out += [event.seq for event in position.take(events)]
        first = position.first_after_hole(events)
        assert first is None or (first in seqs and first > position.last + 1)
    assert given_out == list(range(after + 1, after + 1 + len(given_out)))
    assert position.last == after + len(given_out)
