"""Moves the log of one claimed run from Redis into the archive: in segments during the run, the rest at its end."""

import asyncio
import secrets
from functools import partial

from infra.contract.errors import ContractError, FilesUnavailable, HostExhausted
from infra.contract.log import Event, LogArchive, Segment
from infra.contract.queue import Claim
from infra.contract.redis_store.work_queue import WorkQueue
from infra.contract.states import Outcome
from infra.logging import log
from worker.run.retrying import attempts, until_answered

SEGMENT_EVENTS = 10_000
SEGMENT_BYTES = 4 * 1024 * 1024
"""A segment is due when this number of events, or of bytes of JSON, is in Redis."""
MIN_ARCHIVE_BYTES = 16 * 1024
"""A log without a segment that is smaller than this stays in Redis: an object is billed as at least 128 kB."""
TAIL_BYTES = 32 * 1024 * 1024
"""Limit of a log in Redis while the object store is unavailable; beyond it, a tool that logs has to wait."""
MAX_WAIT_S = 10.0
EVENT_BYTES = 256
"""Estimated size of an event that an earlier owner of the run has logged."""


class Archiver:
    """Counts the events that are stored in Redis, and moves them into the archive.

    A segment is read from Redis, stored in the archive, and then named in the run's record by a fenced `trim`, which
    deletes its events from Redis. So an event is deleted from Redis only once the archive has it. If the worker dies
    between the two calls, the object stays: `trim` may have been executed although its reply was lost. The next owner
    trusts the record and continues after the last segment named there; an object that no record names is deleted with
    the run.
    """

    def __init__(self, store: WorkQueue, archive: LogArchive, claim: Claim) -> None:
        self._store = store
        self._archive = archive
        self._run, self._owner = claim.run, claim.owner
        self._writer = secrets.randbits(48)
        self._segments = list(claim.segments)
        self._events = claim.run.seq - self._last_archived
        self._bytes = self._events * EVENT_BYTES
        self._finishing = False
        self._has_gap = False
        self._task: asyncio.Task[None] | None = None
        self._has_space = asyncio.Event()
        self._has_space.set()

    def count_stored(self, events: int, size_bytes: int) -> None:
        """Count a batch that was added to the log in Redis; start to archive if a segment is due."""
        self._events += events
        self._bytes += size_bytes
        if self._bytes >= TAIL_BYTES and not self._has_gap:
            self._has_space.clear()
        if self._is_due() and self._task is None:
            self._task = asyncio.create_task(self._archive_while_due(), name=f"archive {self._run.id}")

    @property
    def is_full(self) -> bool:
        """True while Redis holds as much of this log as it may: callers must wait before they log more."""
        return not self._has_space.is_set()

    async def wait_for_space(self) -> None:
        """Return once Redis may take more of this log."""
        await self._has_space.wait()

    async def finish(self, events: int) -> None:
        """Archive the rest of a log that has ended; `events` is the number of events in the run's last write.

        If the archive is unavailable, the rest stays in Redis for as long as the run.
        """
        self._finishing = True
        self._events += events
        self._bytes += events * EVENT_BYTES
        if self._task:
            await asyncio.wait({self._task})
        try:
            if self._segments or self._bytes >= MIN_ARCHIVE_BYTES:
                while self._events > 0 and await self._archive_segment():
                    pass
        except ContractError as exc:
            log("archive.deferred", run_id=self._run.id, fence=self._run.fence, reason=str(exc))

    async def abandon(self) -> None:
        """Stop archiving; the next owner of the run continues after the segments that its record names."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @property
    def _last_archived(self) -> int:
        return self._segments[-1].last if self._segments else 0

    def _is_due(self) -> bool:
        return not self._has_gap and (self._events >= SEGMENT_EVENTS or self._bytes >= SEGMENT_BYTES)

    async def _archive_while_due(self) -> None:
        """Archive segments while they are due. Raises nothing: a run does not fail because its archive does."""
        try:
            # `finish` ends the retries: the run must not hold its slot until the object store is available again.
            async for attempt in attempts(
                FilesUnavailable, HostExhausted, first_s=0.5, max_s=MAX_WAIT_S, stop=lambda: self._finishing
            ):
                with attempt:
                    while self._is_due() and await self._archive_segment():
                        pass
        except ContractError as exc:
            log("archive.failed", run_id=self._run.id, fence=self._run.fence, reason=str(exc))
        finally:
            self._task = None

    async def _archive_segment(self) -> bool:
        """Archive one segment; return False if there are no events for it, or if the run has another owner."""
        events = await self._read_next()
        if not events:
            self._count_archived(self._events)
            return False
        if events[0].seq != self._last_archived + 1:
            self._stop_at_gap(before=events[0].seq)
            return False
        segment = Segment(events[0].seq, events[-1].seq, self._writer)
        await self._archive.store(self._run, segment, events)
        segments = [*self._segments, segment]
        outcome = await until_answered(lambda: self._store.trim(self._run, segments, owner=self._owner))
        # The caller that deletes the run may have listed its objects before this one was stored. After LOST the object
        # must stay: the record may name it, if `trim` was executed before and its reply was lost.
        if outcome is Outcome.GONE:
            await self._archive.discard(self._run, segment)
        if outcome is not Outcome.OK:
            return False
        self._segments.append(segment)
        self._count_archived(len(events))
        return True

    def _stop_at_gap(self, before: int) -> None:
        """Stop archiving, because Redis has lost the next events: segments must be contiguous.

        The rest of the log stays in Redis, and tools no longer wait for space.
        """
        log("archive.hole", run_id=self._run.id, after=self._last_archived, before=before)
        self._has_gap = True
        self._has_space.set()

    def _count_archived(self, events: int) -> None:
        """Subtract archived events from what Redis holds; their bytes are estimated by their share of the events."""
        self._bytes -= self._bytes * min(events, self._events) // max(1, self._events)
        self._events = max(0, self._events - events)
        if self._bytes < TAIL_BYTES:
            self._has_space.set()

    async def _read_next(self) -> list[Event]:
        """Read the events of the next segment from Redis."""
        events: list[Event] = []
        wanted = min(SEGMENT_EVENTS, 1 + SEGMENT_BYTES * self._events // max(1, self._bytes))
        more, last = True, self._last_archived
        while more and len(events) < wanted:
            after = events[-1].seq if events else last
            found, more = await until_answered(partial(self._store.read, self._run.id, after=after))
            events += found
        return events
