"""One upstream subscription for each channel of the process, however many clients listen to it."""

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from edge_api.logs.frames import LiveBatch
from infra.contract.errors import StoreUnavailable
from infra.contract.log import LogFeed
from infra.logging import log

SETTLE_S = 0.5
"""How long is waited for subscriptions to close. It takes two turns of the loop, unless something hangs."""
INBOX_CHARS = 1024 * 1024
"""What may wait for one client. One that falls further behind is let go and reads on from the stream, which has all."""


class Listener:
    """One client's ear on a channel: hears all from `join` on once the subscription is confirmed."""

    def __init__(self, confirmed: "asyncio.Future[None]", limit_chars: int) -> None:
        self._confirmed = confirmed
        self._limit_chars = limit_chars
        self._waiting: deque[LiveBatch] = deque()
        self._size = 0
        self._ended = False
        self._wake = asyncio.Event()

    async def confirmed(self) -> None:
        """Return once nothing published from now on can be missed. Raises StoreUnavailable."""
        await asyncio.shield(self._confirmed)

    def __aiter__(self) -> "Listener":
        return self

    async def hears(self, within_s: float) -> bool:
        """Whether a batch comes within so many seconds, or the end; it is there then."""
        try:
            async with asyncio.timeout(within_s):
                await self._something()
        except TimeoutError:
            return False
        return True

    async def __anext__(self) -> LiveBatch:
        """The next batch; the end when the upstream has ended or this client was too slow."""
        await self._something()
        if not self._waiting:
            raise StopAsyncIteration
        batch = self._waiting.popleft()
        self._size -= batch.size
        return batch

    async def _something(self) -> None:
        while not self._waiting and not self._ended:
            self._wake.clear()
            await self._wake.wait()

    def put(self, batch: LiveBatch) -> bool:
        """Leave a batch; False if the client is too far behind, and has been let go."""
        self._size += batch.size
        if self._size > self._limit_chars and self._waiting:
            self._waiting.clear()
            self.end()
            return False
        self._waiting.append(batch)
        self._wake.set()
        return True

    def end(self) -> None:
        """No more will come."""
        self._ended = True
        self._wake.set()


class _Topic:
    def __init__(self) -> None:
        self.confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.listeners: set[Listener] = set()
        self.pump: asyncio.Task[None] | None = None


class Fanout:
    """Shares the upstream's subscriptions. Joining and leaving never wait, so a client that goes leaves nothing behind
    even while it is being cancelled.
    """

    def __init__(self, upstream: LogFeed, *, inbox_chars: int = INBOX_CHARS) -> None:
        self._upstream = upstream
        self._inbox_chars = inbox_chars
        self._topics: dict[str, _Topic] = {}
        self._pumps: set[asyncio.Task[None]] = set()

    @contextmanager
    def join(self, channel: str) -> Iterator[Listener]:
        """Listen to a channel, subscribing upstream if nobody does yet. Needs a running loop."""
        topic = self._topics.get(channel) or self._open(channel)
        listener = Listener(topic.confirmed, self._inbox_chars)
        topic.listeners.add(listener)
        try:
            yield listener
        finally:
            topic.listeners.discard(listener)
            if not topic.listeners:
                self._close(channel, topic)

    async def wait_closed(self) -> None:
        """Return once the subscriptions that nobody listens to any longer are closed.

        For a process that may be frozen next: it would keep them half open.
        """
        if closing := [pump for pump in self._pumps if pump.cancelling()]:
            await asyncio.wait(closing, timeout=SETTLE_S)

    async def close(self) -> None:
        """End all subscriptions."""
        for channel, topic in list(self._topics.items()):
            self._close(channel, topic)
        await asyncio.gather(*self._pumps, return_exceptions=True)

    def _open(self, channel: str) -> _Topic:
        topic = self._topics[channel] = _Topic()
        topic.confirmed.add_done_callback(_seen)
        topic.pump = asyncio.create_task(self._pump(channel, topic))
        self._pumps.add(topic.pump)
        topic.pump.add_done_callback(self._pumps.discard)
        return topic

    def _close(self, channel: str, topic: _Topic) -> None:
        if self._topics.get(channel) is topic:
            del self._topics[channel]
        if topic.pump is not None:
            topic.pump.cancel()
        if not topic.confirmed.done():
            topic.confirmed.set_exception(StoreUnavailable("the subscription was closed"))

    async def _pump(self, channel: str, topic: _Topic) -> None:
        try:
            async with self._upstream.subscribe(channel) as messages:
                if not topic.confirmed.done():
                    topic.confirmed.set_result(None)
                async for message in messages:
                    batch = LiveBatch(message)
                    topic.listeners = {each for each in topic.listeners if each.put(batch)}
        except StoreUnavailable as exc:
            _fail(topic, exc)
        except Exception as exc:  # noqa: BLE001
            log("fanout.failed", error=exc, channel=channel)
            _fail(topic, StoreUnavailable("the subscription failed"))
        finally:
            # A new client must open anew, and those here go on by themselves: only they know where they stand.
            if self._topics.get(channel) is topic:
                del self._topics[channel]
            for listener in topic.listeners:
                listener.end()


def _fail(topic: _Topic, exc: Exception) -> None:
    if not topic.confirmed.done():
        topic.confirmed.set_exception(exc)


def _seen(confirmed: "asyncio.Future[None]") -> None:
    """A failed subscription whose clients have left is nobody's error."""
    if not confirmed.cancelled():
        confirmed.exception()
