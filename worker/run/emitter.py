"""Write path of one claimed run: events, journal and file entries, buffered and stored in order under the fence."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import msgspec
from msgspec import structs

from infra import metrics
from infra.contract.errors import LeaseLost
from infra.contract.event_sizing import split, truncate
from infra.contract.events import Splittable, Truncated
from infra.contract.log import NewEvent
from infra.contract.queue import Lease, LeaseReply, Writes
from infra.contract.redis_store.work_queue import WorkQueue
from infra.contract.requests import UserMessage
from infra.contract.states import Outcome
from worker.run.archiver import Archiver
from worker.run.retrying import until_answered

FIRST_S = 0.05
"""Delay of the first batch. The claim itself has logged the run's start, and a run that is shorter needs no batch."""
BATCH_BYTES = 64 * 1024
BUFFER_BYTES = 256 * 1024
"""Limit of the buffer. A tool that logs faster than Redis stores has to wait; its log is not dropped."""


@dataclass(frozen=True)
class BufferedWrites:
    """Writes that must be stored together, such as one event, or the result, files and events of a step."""

    writes: Writes
    size: int


def new_event(data: Truncated, step: int | None = None) -> NewEvent:
    """Build an event with the current time; long texts in `data` are truncated."""
    return NewEvent(ts=now_ms(), type=data.TYPE, step=step, data=truncate(data))


def new_events(data: Truncated | Splittable, step: int | None = None) -> list[NewEvent]:
    """Build one event with the current time, or several consecutive ones if a text is too long for one."""
    ts = now_ms()
    return [NewEvent(ts=ts, type=data.TYPE, step=step, data=part) for part in split(data)]


class LogEmitter:
    """Buffer between the work on a run and Redis: stores writes in order, in batches, each in one atomic call.

    While Redis does not reply, the current batch is sent again under its own number, so nothing is lost or stored
    twice. If Redis rejects a batch, `emit` and `flush` raise the reason from then on: LeaseLost for a stale fence.

    `window_s` is the shortest time between two batches, unless a caller waits for one or a batch is full: events that
    follow a batch are sent together.
    """

    def __init__(
        self,
        store: WorkQueue,
        lease: Lease,
        on_reply: Callable[[LeaseReply], None],
        archiver: Archiver,
        window_s: float,
    ) -> None:
        self._store = store
        self._window_s = window_s
        self._lease = lease
        self._on_reply = on_reply
        self._archiver = archiver
        self._items: deque[BufferedWrites] = deque()
        self._bytes = 0
        self._accepted = 0
        self._stored = 0
        # Makes the first batch due after FIRST_S.
        self._sent_at = time.monotonic() + FIRST_S - window_s
        self._failure: Exception | None = None
        self._last_message = 0
        self._pending = asyncio.Event()
        self._urgent = asyncio.Event()
        self._sending = asyncio.Lock()
        self._progress = asyncio.Condition()
        self._sender: asyncio.Task[None] | None = None
        self._start_timer = asyncio.get_running_loop().call_later(FIRST_S, self._start)

    async def emit(
        self,
        data: Truncated | Splittable,
        *,
        step: int | None = None,
        journal: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Log an event; a text that is too long for one is split into several events.

        Changes of the `journal` are stored in the same write as all of these events.
        Waits only while the buffer is full, or while Redis holds as much of the log as it may before it is archived.
        """
        events = new_events(data, step)
        for part in [events] if journal else [[event] for event in events]:
            self.put(Writes(events=part, journal=dict(journal)))
        if self._bytes > BUFFER_BYTES:
            self._send_now()
            await self._wait_until(lambda: self._bytes <= BUFFER_BYTES)
        if self._archiver.is_full:
            await self._archiver.wait_for_space()
        self._raise_failure()

    def put(self, writes: Writes) -> None:
        """Store these writes together, in one of the next batches; `flush` waits until they are stored."""
        size = sum(_size(event) for event in writes.events) + 200 * len(writes.files)
        size += 100 * len(writes.folders)
        size += sum(64 + len(value) for value in writes.journal.values())
        self._items.append(BufferedWrites(writes, size))
        self._bytes += size
        self._accepted += 1
        self._pending.set()
        if self._bytes >= BATCH_BYTES:
            self._send_now()

    async def flush(self) -> None:
        """Return once everything put so far is stored."""
        self._raise_failure()
        if self._stored == self._accepted:
            return
        target = self._accepted
        self._send_now()
        await self._wait_until(lambda: self._stored >= target)
        self._raise_failure()

    async def messages(self, *, after: int) -> list[UserMessage]:
        """Return the messages to the run after a number, as far as replies of Redis have reported them."""
        last = self._last_message
        if last <= after:
            return []
        return await until_answered(lambda: self._store.messages(self._lease.run_id, after=after, last=last))

    async def close(self) -> Writes:
        """Stop sending, after the batch under way; return the buffered rest for the run's last write."""
        # Holding the lock means that no batch is under way: cancelling one would leave unknown whether it was stored.
        async with self._sending:
            await self.abandon()
        return _merge(self._take(None))

    async def abandon(self) -> None:
        """Stop sending immediately; the buffered rest is dropped unless `close` takes it."""
        self._start_timer.cancel()
        if self._sender:
            self._sender.cancel()
            await asyncio.gather(self._sender, return_exceptions=True)

    def _start(self) -> None:
        # Deferred until the first batch is due: a shorter run is stored in one write, without a task for its log.
        self._start_timer.cancel()
        if not self._sender:
            self._sender = asyncio.create_task(self._send_forever(), name=f"emit {self._lease.run_id}")

    def _send_now(self) -> None:
        """Send the next batch without waiting for the window, because a caller waits or the batch is full."""
        self._urgent.set()
        self._start()

    def _take(self, limit: int | None) -> list[BufferedWrites]:
        """Remove and return the oldest items, up to `limit` bytes but at least one."""
        items: list[BufferedWrites] = []
        size = 0
        while self._items and (limit is None or not items or size + self._items[0].size <= limit):
            items.append(self._items.popleft())
            size += items[-1].size
        self._bytes -= size
        return items

    async def _send_forever(self) -> None:
        try:
            while not self._failure:
                await self._pending.wait()
                await self._coalesce()
                async with self._sending:
                    await self._send_batch()
        except Exception as exc:
            await self._fail(exc)
            raise

    async def _coalesce(self) -> None:
        """Wait until the next batch is due or urgent."""
        try:
            async with asyncio.timeout(self._sent_at + self._window_s - time.monotonic()):
                await self._urgent.wait()
        except TimeoutError:
            pass

    async def _send_batch(self) -> None:
        items = self._take(BATCH_BYTES)
        if not self._items:
            self._pending.clear()
            self._urgent.clear()
        if items:
            writes, began = _merge(items), time.monotonic()
            reply = await until_answered(lambda: self._store.emit(self._lease, writes))
            self._sent_at = time.monotonic()
            metrics.EMIT.observe(self._sent_at - began)
            self._on_reply(reply)
            self._last_message = max(self._last_message, reply.messages)
            # SAME: an earlier attempt was stored, and only its reply was lost.
            if reply.outcome not in {Outcome.OK, Outcome.SAME}:
                lease = self._lease
                raise LeaseLost(f"the lease of run {lease.run_id} under fence {lease.fence} is lost: {reply.outcome}")
            self._lease.batch += 1
            metrics.EVENTS.inc(len(writes.events))
            self._archiver.count_stored(len(writes.events), sum(item.size for item in items))
        async with self._progress:
            self._stored += len(items)
            self._progress.notify_all()

    async def _fail(self, failure: Exception) -> None:
        async with self._progress:
            self._failure = failure
            self._progress.notify_all()

    async def _wait_until(self, reached: Callable[[], bool]) -> None:
        async with self._progress:
            await self._progress.wait_for(lambda: self._failure is not None or reached())

    def _raise_failure(self) -> None:
        if self._failure:
            raise self._failure


def _merge(items: list[BufferedWrites]) -> Writes:
    """Merge writes in order; the last value of a key wins, and usage is added up."""
    merged = Writes(
        events=[], journal={}, files={}, folders={}, read=[number for item in items for number in item.writes.read]
    )
    for item in items:
        merged.events.extend(item.writes.events)
        merged.journal.update(item.writes.journal)
        merged.files.update(item.writes.files)
        merged.folders.update(item.writes.folders)
    counted = [item.writes.usage for item in items if item.writes.usage]
    return structs.replace(merged, usage=sum(counted[1:], counted[0])) if counted else merged


def now_ms() -> int:
    """Return the current time in ms since the epoch."""
    return time.time_ns() // 1_000_000


def _size(event: NewEvent) -> int:
    """Estimate the bytes of an event in a batch. Readers of the stream limit a read by the number of batches."""
    return 64 + len(msgspec.json.encode(event.data))
