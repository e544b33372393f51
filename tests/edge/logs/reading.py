"""Followers that are read step by step, with an upstream whose messages the test writes."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager

from edge_api.logs.fanout import Fanout
from edge_api.logs.items import Item, ItemSource
from edge_api.logs.reader import LogReader
from infra.contract.errors import StoreUnavailable
from infra.contract.log import Event
from tests.support.archive import NoArchive
from tests.support.run_store import RunStore
from tests.support.waiting import until

RUN = "run_1"


class ScriptedFeed:
    """Upstream whose messages the test writes itself."""

    def __init__(self) -> None:
        self.queues: list[asyncio.Queue[str | None]] = []
        self.failures = 0
        self.open = 0

    @asynccontextmanager
    async def subscribe(self, channel: str) -> AsyncIterator[AsyncIterator[str]]:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("no subscription today")
        queue: asyncio.Queue[str | None] = asyncio.Queue()
        self.queues.append(queue)
        self.open += 1
        try:
            yield self._messages(queue)
        finally:
            self.open -= 1

    async def _messages(self, queue: "asyncio.Queue[str | None]") -> AsyncIterator[str]:
        while (message := await queue.get()) is not None:
            yield message

    async def subscribed(self, times: int = 1) -> None:
        async def is_subscribed() -> bool:
            return len(self.queues) >= times

        await until(is_subscribed, f"subscribed {times} times")

    def publish(self, message: str) -> None:
        self.queues[-1].put_nowait(message)

    def die(self) -> None:
        self.queues[-1].put_nowait(None)


class EndOfLog(Exception):
    """Raised when a test reads beyond the end of a followed log."""


class Watched:
    """Follower that is read step by step. Like a stream to a client it always waits for the next items."""

    def __init__(self, source: ItemSource) -> None:
        self._source = source
        self._ready: list[Item] = []
        self.coming = asyncio.create_task(self._next())

    async def _next(self) -> Sequence[Item]:
        if items := await self._source.next_batch():
            return items
        raise EndOfLog

    async def take(self, count: int) -> list[Item]:
        async with asyncio.timeout(60):
            while len(self._ready) < count:
                self._ready += await asyncio.shield(self.coming)
                self.coming = asyncio.create_task(self._next())
        taken, self._ready = self._ready[:count], self._ready[count:]
        return taken

    async def seqs(self, count: int) -> list[int]:
        return [item.seq for item in await self.take(count) if isinstance(item, Event)]


@asynccontextmanager
async def reading(store: RunStore, fanout: Fanout, after: int = 0) -> AsyncIterator[Watched]:
    async with aclosing(LogReader(store, fanout, NoArchive()).follow(await store.log(RUN), after)) as follower:
        watched = Watched(follower)
        try:
            yield watched
        finally:
            watched.coming.cancel()
            await asyncio.gather(watched.coming, return_exceptions=True)


@asynccontextmanager
async def watching(store: RunStore, feed: ScriptedFeed, after: int = 0) -> AsyncIterator[Watched]:
    fanout = Fanout(feed)
    async with reading(store, fanout, after) as watched:
        yield watched
    await fanout.close()
    assert feed.open == 0


def batch(first: int, count: int = 1) -> str:
    events = ",".join('{"ts":1,"type":"log"}' for _ in range(count))
    return f'{{"first":{first},"events":[{events}]}}'


async def read_all(source: ItemSource) -> list[Item]:
    """Return all items of a log that ends."""
    found: list[Item] = []
    async with aclosing(source):
        while items := await source.next_batch():
            found += items
    return found
