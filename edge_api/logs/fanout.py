"""Fan-out of live logs: one upstream subscription for each channel of the process, shared by all of its listeners."""

import asyncio
import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from edge_api.logs.frames import LiveBatch
from infra.contract.errors import StoreUnavailable
from infra.contract.log import LogFeed
from infra.logging import log

CLOSE_WAIT_S = 0.5
"""Longest wait for subscriptions to close. Closing takes two iterations of the event loop unless the upstream hangs."""
INBOX_CHARS = 1024 * 1024
"""Most text that waits for one listener. A slower listener is dropped; its reader continues from the Redis stream."""
WAKE_S = 0.0001
"""Time per listener between two wake-ups of a channel's listeners: several times what it takes to send to one. Batches
that arrive meanwhile are joined, so that a thousand listeners get ten chunks a second and leave time for others."""


class Listener:
    """Inbox of one client on a channel. Receives every batch from `join` on, once the subscription is confirmed."""

    def __init__(self, confirmed: "asyncio.Future[None]", limit_chars: int) -> None:
        self._confirmed = confirmed
        self._limit_chars = limit_chars
        self._inbox: deque[LiveBatch] = deque()
        self._size = 0
        self._ended = False
        self._changed = asyncio.Event()

    async def confirmed(self) -> None:
        """Return once every message published from now on will arrive. Raises StoreUnavailable."""
        # Shielded, because all listeners of the channel await the same future.
        await asyncio.shield(self._confirmed)

    async def next_batch(self) -> LiveBatch | None:
        """Wait for the next batch and return it; None once the upstream has ended or this listener was dropped.

        Batches that have arrived meanwhile are joined to it: the busier the process, the fewer chunks it has to send.
        """
        await self._wait()
        if not self._inbox:
            return None
        batch = self._inbox.popleft()
        while self._inbox and (joined := batch.join(self._inbox[0])):
            batch = joined
            self._inbox.popleft()
        self._size -= batch.size
        return batch

    async def wait(self, timeout_s: float) -> bool:
        """Return True as soon as `next_batch` returns without waiting, False if that takes longer than `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._wait()
        except TimeoutError:
            return False
        return True

    async def _wait(self) -> None:
        while not self._inbox and not self._ended:
            self._changed.clear()
            await self._changed.wait()

    def put(self, batch: LiveBatch) -> bool:
        """Add a batch to the inbox. Return False if the inbox is full; it is then emptied, and the listener ends."""
        self._size += batch.size
        # A single batch is accepted whatever its size, so that every listener makes progress.
        if self._size > self._limit_chars and self._inbox:
            self._inbox.clear()
            self.end()
            return False
        self._inbox.append(batch)
        return True

    def wake(self) -> None:
        """Let a waiting `next_batch` look into the inbox."""
        self._changed.set()

    def end(self) -> None:
        """Let `next_batch` return None after the batches in the inbox."""
        self._ended = True
        self._changed.set()


class _SharedChannel:
    def __init__(self) -> None:
        self.confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.listeners: set[Listener] = set()
        self.pump: asyncio.Task[None] | None = None
        self._pending: list[LiveBatch] = []
        self._woken_s = 0.0
        self._waking: asyncio.TimerHandle | None = None

    def deliver(self, batch: LiveBatch) -> None:
        """Pass a batch on to the listeners as soon as WAKE_S allows, joined with those that arrive until then.

        A listener that joins meanwhile gets them too; its reader drops events that it has read from storage.
        """
        # Joined here instead of in each inbox: that would be half of the work for a thousand listeners.
        if self._pending and (joined := self._pending[-1].join(batch)):
            self._pending[-1] = joined
        else:
            self._pending.append(batch)
        loop = asyncio.get_running_loop()
        due_s = self._woken_s + WAKE_S * len(self.listeners)
        # Also if the first is a whole chunk: what waits here is bounded.
        if due_s <= loop.time() or len(self._pending) > 1:
            self._wake()
        elif self._waking is None:
            self._waking = loop.call_at(due_s, self._wake)

    def end(self) -> None:
        """End all listeners, after the batches that have arrived."""
        self._wake()
        for listener in self.listeners:
            listener.end()

    def _wake(self) -> None:
        if self._waking is not None:
            self._waking.cancel()
            self._waking = None
        self._woken_s = asyncio.get_running_loop().time()
        pending, self._pending = self._pending, []
        # Drop the listeners whose inbox is full.
        self.listeners = {each for each in self.listeners if all(each.put(batch) for batch in pending)}
        for listener in self.listeners:
            listener.wake()


class Fanout:
    """Shares upstream subscriptions between listeners.

    Joining and leaving never wait, so a client that is being cancelled still leaves completely.
    """

    def __init__(self, upstream: LogFeed, *, inbox_chars: int = INBOX_CHARS) -> None:
        self._upstream = upstream
        self._inbox_chars = inbox_chars
        self._channels: dict[str, _SharedChannel] = {}
        self._pumps: set[asyncio.Task[None]] = set()

    @contextmanager
    def join(self, channel: str) -> Iterator[Listener]:
        """Listen to a channel; the first listener opens the subscription, the last one closes it.

        Needs a running event loop.
        """
        shared = self._channels.get(channel) or self._open(channel)
        listener = Listener(shared.confirmed, self._inbox_chars)
        shared.listeners.add(listener)
        try:
            yield listener
        finally:
            shared.listeners.discard(listener)
            if not shared.listeners:
                self._close(channel, shared)

    async def wait_closed(self) -> None:
        """Wait until the subscriptions without listeners are closed, for at most CLOSE_WAIT_S.

        Call it before Lambda can freeze the process: a subscription frozen while closing stays half open upstream.
        """
        if closing := [pump for pump in self._pumps if pump.cancelling()]:
            await asyncio.wait(closing, timeout=CLOSE_WAIT_S)

    async def close(self) -> None:
        """Close all subscriptions."""
        for channel, shared in list(self._channels.items()):
            self._close(channel, shared)
        await asyncio.gather(*self._pumps, return_exceptions=True)

    def _open(self, channel: str) -> _SharedChannel:
        shared = self._channels[channel] = _SharedChannel()
        shared.confirmed.add_done_callback(_mark_retrieved)
        shared.pump = asyncio.create_task(self._pump(channel, shared))
        self._pumps.add(shared.pump)
        shared.pump.add_done_callback(self._pumps.discard)
        return shared

    def _close(self, channel: str, shared: _SharedChannel) -> None:
        if self._channels.get(channel) is shared:
            del self._channels[channel]
        if shared.pump is not None:
            shared.pump.cancel()
        if not shared.confirmed.done():
            shared.confirmed.set_exception(StoreUnavailable("the subscription was closed"))

    async def _pump(self, channel: str, shared: _SharedChannel) -> None:
        """Pass the messages of the upstream on to the listeners until the upstream ends."""
        try:
            async with self._upstream.subscribe(channel) as messages:
                if not shared.confirmed.done():
                    shared.confirmed.set_result(None)
                async for message in messages:
                    shared.deliver(LiveBatch.decode(message))
        except StoreUnavailable as exc:
            _fail(shared, exc)
        except Exception as exc:  # noqa: BLE001
            log("fanout.failed", level=logging.ERROR, error=exc, channel=channel)
            _fail(shared, StoreUnavailable("the subscription failed"))
        finally:
            # A later client must open a new subscription. The current listeners end, and their readers subscribe again,
            # because only a reader knows its position.
            if self._channels.get(channel) is shared:
                del self._channels[channel]
            shared.end()


def _fail(shared: _SharedChannel, exc: Exception) -> None:
    if not shared.confirmed.done():
        shared.confirmed.set_exception(exc)


def _mark_retrieved(confirmed: "asyncio.Future[None]") -> None:
    """Mark the exception as retrieved; otherwise asyncio logs it when all listeners have left."""
    if not confirmed.cancelled():
        confirmed.exception()
