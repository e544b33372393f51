"""Moves the log of one claimed run out of Redis into the archive: in segments while it works, the rest at its end."""

import asyncio
from functools import partial

from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from infra.contract.errors import ContractError, FilesUnavailable, HostExhausted
from infra.contract.log import Event, LogArchive, Segment
from infra.contract.queue import Claim
from infra.contract.redis_store.work_queue import WorkQueue
from infra.contract.states import Outcome
from infra.logging import log
from worker.run.retrying import until_answered

SEGMENT_EVENTS = 10_000
SEGMENT_BYTES = 4 * 1024 * 1024
"""A segment is made as soon as so many events, or bytes of JSON, wait for it."""
REST_BYTES = 16 * 1024
"""A log that never had a segment and is smaller than this stays in Redis: an object is billed as 128 kB at least."""
TAIL_BYTES = 32 * 1024 * 1024
"""While the object store is away, Redis takes so much of a log; then whoever logs has to wait."""
MAX_WAIT_S = 10.0
EVENT_BYTES = 256
"""A guess, for events of earlier owners."""


class Archiver:
    """Counts what is stored in Redis and stores it in the archive; Redis forgets only what the archive has.

    A segment is read from Redis, stored, and then named in the record under the fence. A worker that is lost in
    between leaves its object: the record may name it, if only the answer that said so was lost, and the next owner goes
    on from the record. What no record names goes with the run.
    """

    def __init__(self, store: WorkQueue, archive: LogArchive, claim: Claim) -> None:
        self._store = store
        self._archive = archive
        self._run = claim.run
        self._segments = list(claim.segments)
        self._events = claim.run.seq - self._last
        self._bytes = self._events * EVENT_BYTES
        self._closing = False
        self._stuck = False
        self._rolling: asyncio.Task[None] | None = None
        self._room = asyncio.Event()
        self._room.set()

    def stored(self, events: int, size_bytes: int) -> None:
        """So much has been added to the log in Redis."""
        self._events += events
        self._bytes += size_bytes
        if self._bytes >= TAIL_BYTES and not self._stuck:
            self._room.clear()
        if self._is_due() and self._rolling is None:
            self._rolling = asyncio.create_task(self._roll_while_due(), name=f"archive {self._run.id}")

    @property
    def is_behind(self) -> bool:
        """Whether Redis has to keep more of this log than it may."""
        return not self._room.is_set()

    async def room(self) -> None:
        """Return once Redis may take more of this log."""
        await self._room.wait()

    async def finish(self, events: int) -> None:
        """Archive the rest of a log that has ended with so many more events.

        What cannot be archived now stays in Redis for as long as the run.
        """
        self._closing = True
        self._events += events
        self._bytes += events * EVENT_BYTES
        if self._rolling:
            await asyncio.wait({self._rolling})
        try:
            if self._segments or self._bytes >= REST_BYTES:
                while self._events > 0 and await self._roll():
                    pass
        except ContractError as exc:
            log("archive.left", run_id=self._run.id, fence=self._run.fence, reason=str(exc))

    async def abandon(self) -> None:
        """Make no more segments: whoever claims the run next goes on from what its record says."""
        if self._rolling:
            self._rolling.cancel()
            await asyncio.gather(self._rolling, return_exceptions=True)

    @property
    def _last(self) -> int:
        return self._segments[-1].last if self._segments else 0

    def _is_due(self) -> bool:
        return not self._stuck and (self._events >= SEGMENT_EVENTS or self._bytes >= SEGMENT_BYTES)

    async def _roll_while_due(self) -> None:
        """Never raises: a run whose log cannot be archived goes on until Redis has no more room for it."""
        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type((FilesUnavailable, HostExhausted)),
                wait=wait_random_exponential(multiplier=0.5, max=MAX_WAIT_S),
                stop=lambda _: self._closing,
                reraise=True,
            ):
                with attempt:
                    while self._is_due() and await self._roll():
                        pass
        except ContractError as exc:
            log("archive.failed", run_id=self._run.id, fence=self._run.fence, reason=str(exc))
        finally:
            self._rolling = None

    async def _roll(self) -> bool:
        """Make one segment; False if there is nothing to make it of, or the run is somebody else's."""
        events = await self._read()
        if not events:
            self._archived(self._events)
            return False
        if events[0].seq != self._last + 1:
            self._give_up(before=events[0].seq)
            return False
        segment = Segment(events[0].seq, events[-1].seq, self._run.fence)
        await self._archive.store(self._run, segment, events)
        outcome = await until_answered(lambda: self._store.trim(self._run, [*self._segments, segment]))
        if outcome is Outcome.GONE:
            await self._archive.discard(self._run, segment)
        if outcome is not Outcome.OK:
            return False
        self._segments.append(segment)
        self._archived(len(events))
        return True

    def _give_up(self, before: int) -> None:
        """Redis has lost what comes next: the run goes on, and its log stays where it is, with the gap that it has."""
        log("archive.hole", run_id=self._run.id, after=self._last, before=before)
        self._stuck = True
        self._room.set()

    def _archived(self, events: int) -> None:
        """So many events have left Redis."""
        self._bytes -= self._bytes * min(events, self._events) // max(1, self._events)
        self._events = max(0, self._events - events)
        if self._bytes < TAIL_BYTES:
            self._room.set()

    async def _read(self) -> list[Event]:
        """The events of the next segment, from Redis."""
        events: list[Event] = []
        wanted = min(SEGMENT_EVENTS, 1 + SEGMENT_BYTES * self._events // max(1, self._bytes))
        more, last = True, self._last
        while more and len(events) < wanted:
            after = events[-1].seq if events else last
            found, more = await until_answered(partial(self._store.read, self._run.id, after=after))
            events += found
        return events
