"""The log of one claimed run on its way to Redis: buffered, coalesced, in order, under the run's fence."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from infra.contract.errors import LeaseLost
from infra.contract.event_sizing import split, truncate
from infra.contract.events import Splittable, Truncated
from infra.contract.log import NewEvent
from infra.contract.queue import Lease, LeaseReply, Writes
from infra.contract.redis_store.work_queue import WorkQueue
from infra.contract.states import Outcome
from worker.run.archiver import Archiver
from worker.run.retrying import until_answered

FIRST_S = 0.05
"""The claim has just logged the run's start: the first events wait so long, and a shorter run costs no batch."""
COALESCE_S = 0.1
"""Events that follow a batch wait so long for company."""
BATCH_BYTES = 64 * 1024
BUFFER_BYTES = 256 * 1024
"""Beyond this a tool that logs has to wait: it is slowed, its log is not dropped."""


@dataclass(frozen=True)
class Item:
    """What is stored together or not at all, such as an event, or all that the end of a step brings."""

    writes: Writes
    size: int


def new_event(data: Truncated, step: int | None = None) -> NewEvent:
    """An event that happens now."""
    return NewEvent(ts=_now_ms(), type=data.TYPE, step=step, data=truncate(data))


class LogEmitter:
    """Takes events, journal entries and file entries and stores them in order, in batches, each in one atomic call.

    While Redis does not answer, the batch under way is sent again under its own number until it is stored, so that
    nothing is lost or doubled. When the fence turns out stale, every method raises LeaseLost; when Redis refuses a
    batch, what it said. The claim itself has just logged `run.started`, so the first batch waits for company too.
    """

    def __init__(
        self, store: WorkQueue, lease: Lease, on_reply: Callable[[LeaseReply], None], archiver: Archiver
    ) -> None:
        self._store = store
        self._lease = lease
        self._on_reply = on_reply
        self._archiver = archiver
        self._items: deque[Item] = deque()
        self._bytes = 0
        self._taken = 0
        self._stored = 0
        self._sent_at = time.monotonic() + FIRST_S - COALESCE_S
        self._failure: Exception | None = None
        self._dirty = asyncio.Event()
        self._urgent = asyncio.Event()
        self._sending = asyncio.Lock()
        self._progress = asyncio.Condition()
        self._pump: asyncio.Task[None] | None = None
        self._starter = asyncio.get_running_loop().call_later(FIRST_S, self._start)

    async def emit(self, data: Truncated | Splittable, *, step: int | None = None) -> None:
        """Log an event, or those that a long text takes.

        Waits only while the buffer, or Redis with what is not archived yet, is full.
        """
        ts = _now_ms()
        for part in split(data):
            self.put(Writes(events=[NewEvent(ts=ts, type=data.TYPE, step=step, data=part)]))
        if self._bytes > BUFFER_BYTES:
            self._hurry()
            await self._until(lambda: self._bytes <= BUFFER_BYTES)
        if self._archiver.is_behind:
            await self._archiver.room()
        self._raise_failure()

    def put(self, writes: Writes) -> None:
        """Store this as a whole with one of the next batches; `flush` makes sure of it."""
        size = sum(_size(event) for event in writes.events) + 200 * len(writes.files)
        size += sum(64 + len(value) for value in writes.journal.values())
        self._items.append(Item(writes, size))
        self._bytes += size
        self._taken += 1
        self._dirty.set()
        if self._bytes >= BATCH_BYTES:
            self._hurry()

    async def flush(self) -> None:
        """Return once everything taken so far is stored."""
        self._raise_failure()
        if self._stored == self._taken:
            return
        target = self._taken
        self._hurry()
        await self._until(lambda: self._stored >= target)
        self._raise_failure()

    async def close(self) -> Writes:
        """Stop sending; what is left goes with the run's last write. Waits for the batch under way."""
        async with self._sending:
            await self.abandon()
        return _merged(self._take(None))

    async def abandon(self) -> None:
        """Stop at once: the run is not ours any more, or the batch under way is done."""
        self._starter.cancel()
        if self._pump:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)

    def _start(self) -> None:
        """Begin to send. A run that is over before has one write for all, and no task for its log."""
        self._starter.cancel()
        if not self._pump:
            self._pump = asyncio.create_task(self._pump_forever(), name=f"emit {self._lease.run_id}")

    def _hurry(self) -> None:
        """Somebody waits: send now, not when the batch is due."""
        self._urgent.set()
        self._start()

    def _take(self, limit: int | None) -> list[Item]:
        """The first items, up to `limit` bytes but at least one."""
        items: list[Item] = []
        size = 0
        while self._items and (limit is None or not items or size + self._items[0].size <= limit):
            items.append(self._items.popleft())
            size += items[-1].size
        self._bytes -= size
        return items

    async def _pump_forever(self) -> None:
        try:
            while not self._failure:
                await self._dirty.wait()
                await self._coalesce()
                async with self._sending:
                    await self._send()
        except Exception as exc:
            await self._fail(exc)
            raise

    async def _coalesce(self) -> None:
        """Wait until the next batch is due, or somebody waits for it."""
        try:
            async with asyncio.timeout(self._sent_at + COALESCE_S - time.monotonic()):
                await self._urgent.wait()
        except TimeoutError:
            pass

    async def _send(self) -> None:
        items = self._take(BATCH_BYTES)
        if not self._items:
            self._dirty.clear()
            self._urgent.clear()
        if items:
            writes = _merged(items)
            held = await until_answered(lambda: self._store.emit(self._lease, writes))
            self._sent_at = time.monotonic()
            self._on_reply(held)
            if held.outcome not in {Outcome.OK, Outcome.SAME}:
                lease = self._lease
                raise LeaseLost(f"run {lease.run_id} is not held under fence {lease.fence}: {held.outcome}")
            self._lease.batch += 1
            self._archiver.stored(len(writes.events), sum(item.size for item in items))
        async with self._progress:
            self._stored += len(items)
            self._progress.notify_all()

    async def _fail(self, failure: Exception) -> None:
        async with self._progress:
            self._failure = failure
            self._progress.notify_all()

    async def _until(self, reached: Callable[[], bool]) -> None:
        async with self._progress:
            await self._progress.wait_for(lambda: self._failure is not None or reached())

    def _raise_failure(self) -> None:
        if self._failure:
            raise self._failure


def _merged(items: list[Item]) -> Writes:
    """All in one, in order: of two values for one key the later one holds."""
    merged = Writes(events=[], journal={}, files={})
    for item in items:
        merged.events.extend(item.writes.events)
        merged.journal.update(item.writes.journal)
        merged.files.update(item.writes.files)
    return merged


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _size(event: NewEvent) -> int:
    """Bytes in a batch, about: what the stream's readers fetch at once is counted in batches."""
    return 64 + len(msgspec.json.encode(event.data))
