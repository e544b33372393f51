"""Batches that wait for a listener are joined. Subscriptions without listeners are closed, and `wait_closed` waits."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from edge_api.logs import fanout as module
from edge_api.logs.fanout import Fanout, Listener
from edge_api.logs.frames import CHUNK_BYTES, LiveBatch, frame
from infra.contract.log import Batch, Event, NewEvent
from infra.contract.redis_store import codec


class SlowFeed:
    """Subscriptions that close only when the test allows it."""

    def __init__(self) -> None:
        self.may_close = asyncio.Event()
        self.closing = self.open = 0

    @asynccontextmanager
    async def subscribe(self, channel: str) -> AsyncIterator[AsyncIterator[str]]:
        self.open += 1
        try:
            yield self._nothing()
        finally:
            self.closing += 1
            await self.may_close.wait()
            self.open -= 1

    async def _nothing(self) -> AsyncIterator[str]:
        await asyncio.Event().wait()
        yield ""


async def test_wait_closed_waits_only_for_subscriptions_without_listeners() -> None:
    feed = SlowFeed()
    fanout = Fanout(feed)
    with fanout.join("used") as used:
        await used.confirmed()
        await fanout.wait_closed()
        with fanout.join("idle") as idle:
            await idle.confirmed()
        closing = asyncio.create_task(fanout.wait_closed())
        while not feed.closing:
            await asyncio.sleep(0)
        assert not closing.done()
        feed.may_close.set()
        await closing
        assert feed.open == 1
    await fanout.wait_closed()
    assert feed.open == 0


async def test_wait_closed_gives_up_on_a_subscription_that_does_not_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLOSE_WAIT_S", 0.01)
    feed = SlowFeed()
    fanout = Fanout(feed)
    with fanout.join("idle") as idle:
        await idle.confirmed()
    await fanout.wait_closed()
    assert feed.open == 1
    feed.may_close.set()
    await fanout.close()
    assert feed.open == 0


def message(first: int, count: int = 1, size: int = 10) -> str:
    events = [NewEvent(ts=0, type="message", data={"text": "x" * size}) for _ in range(count)]
    return codec.encode(Batch(first=first, events=events))


class Publisher:
    """Channel with two listeners, whose messages arrive when the test says so."""

    def __init__(self) -> None:
        confirmed = asyncio.get_running_loop().create_future()
        self.listeners = [Listener(confirmed, 1024 * 1024) for _ in range(2)]

    def publish(self, *messages: str) -> None:
        for each in messages:
            batch = LiveBatch.decode(each)
            for listener in self.listeners:
                assert listener.put(batch)

    async def received(self, count: int) -> list[LiveBatch]:
        """Return the next batches of the first listener; the other one gets the same objects."""
        found = []
        for _ in range(count):
            first, second = [await listener.next_batch() for listener in self.listeners]
            assert first is second
            assert first is not None
            assert first.framed == b"".join(map(frame, first))
            found.append(first)
        assert not any([await listener.wait(0) for listener in self.listeners])
        return found


def numbers(batch: LiveBatch) -> list[int]:
    return [event.seq for event in batch if isinstance(event, Event)]


async def test_batches_that_wait_are_joined_once_for_all_listeners() -> None:
    channel = Publisher()
    channel.publish(message(1, 2))
    assert [numbers(batch) for batch in await channel.received(1)] == [[1, 2]]
    channel.publish(message(3), message(4, 3), message(7))
    assert [numbers(batch) for batch in await channel.received(1)] == [[3, 4, 5, 6, 7]]


async def test_nothing_is_joined_over_a_hole_a_repetition_or_a_damaged_message() -> None:
    channel = Publisher()
    channel.publish(message(1), message(3), message(3), "{", message(4), message(5))
    found = await channel.received(5)
    assert [numbers(batch) for batch in found] == [[1], [3], [3], [], [4, 5]]
    assert [batch.damaged for batch in found] == [False, False, False, True, False]


async def test_joined_batches_are_at_most_a_chunk() -> None:
    channel = Publisher()
    channel.publish(*(message(number, size=CHUNK_BYTES // 4) for number in range(1, 8)))
    assert [numbers(batch) for batch in await channel.received(3)] == [[1, 2, 3], [4, 5, 6], [7]]
    channel.publish(message(8, size=2 * CHUNK_BYTES), message(9))
    assert [numbers(batch) for batch in await channel.received(2)] == [[8], [9]]


async def test_very_many_small_batches_are_joined() -> None:
    channel = Publisher()
    channel.publish(*(message(number, size=0) for number in range(1, 701)))
    assert [numbers(batch) for batch in await channel.received(1)] == [list(range(1, 701))]


class QueueFeed:
    """Subscription whose messages come from a queue."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[str] = asyncio.Queue()

    @asynccontextmanager
    async def subscribe(self, channel: str) -> AsyncIterator[AsyncIterator[str]]:
        yield self._all()

    async def _all(self) -> AsyncIterator[str]:
        while True:
            yield await self.messages.get()


async def test_a_batch_that_waits_for_its_turn_arrives_when_the_turn_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAKE_S", 0.2)
    feed = QueueFeed()
    fanout = Fanout(feed)
    with fanout.join("runs") as listener:
        await listener.confirmed()
        for first in (1, 2):
            feed.messages.put_nowait(message(first))
            found = await listener.next_batch()
            assert found is not None
            assert numbers(found) == [first]
    await fanout.close()


class EndingFeed:
    """Subscription that ends after some messages."""

    def __init__(self, *messages: str) -> None:
        self._messages = messages

    @asynccontextmanager
    async def subscribe(self, channel: str) -> AsyncIterator[AsyncIterator[str]]:
        yield self._all()

    async def _all(self) -> AsyncIterator[str]:
        for each in self._messages:
            yield each


@pytest.mark.parametrize(
    ("sent", "received"),
    [
        ([message(1), message(2), message(3, 2)], [[1, 2, 3, 4]]),
        ([message(1), message(2), message(4), message(5)], [[1, 2], [4, 5]]),
        ([message(1), message(2, 1, CHUNK_BYTES), message(3)], [[1], [2], [3]]),
    ],
)
async def test_batches_that_wait_for_a_wake_up_arrive_before_the_end(
    monkeypatch: pytest.MonkeyPatch, sent: list[str], received: list[list[int]]
) -> None:
    monkeypatch.setattr(module, "WAKE_S", 0.5)
    fanout = Fanout(EndingFeed(*sent))
    with fanout.join("c") as first, fanout.join("c") as second:
        for expected in received:
            batch = await first.next_batch()
            assert batch is not None
            assert numbers(batch) == expected
            assert await second.next_batch() is batch
        assert await first.next_batch() is None
        assert await second.next_batch() is None
