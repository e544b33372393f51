"""Stored part of a log: read from the archive and from the Redis stream as if it were one."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

from edge_api.http.response_models import Gap
from edge_api.logs.backoff import backoff_s
from edge_api.logs.position import Position
from infra.contract.errors import FileMissing, RunGone, StoreUnavailable
from infra.contract.log import Event, LogArchive, Segment
from infra.contract.redis_store.reader import RunReader
from infra.logging import log

LAG_TRIES = 5
"""Number of times that missing events are looked for before they are a gap: a replica can lag behind the publisher."""


class StoredLog:
    """Reads the stored events after a reader's position, in passes. A pass ends when it has read all that is stored.

    Methods raise StoreUnavailable, FilesUnavailable and RunGone. Close with `aclose()`.
    """

    def __init__(self, store: RunReader, archive: LogArchive, position: Position) -> None:
        self._store = store
        self._archive = archive
        self.position = position
        self._segment: Segment | None = None
        self._segment_events: AsyncGenerator[list[Event], None] | None = None
        self._stream_has_more = True

    async def next_batch(self) -> Sequence[Event | Gap] | None:
        """Return the next events, or None at the end of the pass. The call after that begins a new pass.

        Costs one round trip for a batch. A Gap takes the place of events that are neither archived nor in the stream.
        """
        while True:
            if items := await self._next_archived():
                return items
            # A log that is known to end here needs no command: finished and archived logs are read from the archive
            # alone.
            if not self._stream_has_more or self.position.is_end():
                self._stream_has_more = True
                return None
            if items := await self._next_streamed():
                return items

    async def refresh(self) -> None:
        """Read the run's record again. Raises RunGone if the run has been deleted."""
        position = self.position
        created_ms = position.run.created_ms
        for attempt in range(LAG_TRIES):
            position.run = await self._store.log(position.run.id)
            if position.run.created_ms != created_ms:
                # An idempotency key determines the id of a run, so a deleted run can be created again under its id.
                raise RunGone(f"the run '{position.run.id}' has been deleted")
            if position.run.seq >= position.seen:
                return
            # The record is older than an event that was seen: it comes from a replica that lags behind.
            await asyncio.sleep(backoff_s(attempt))
        raise StoreUnavailable("the record of the run lags behind its log")

    def skip(self, to: int) -> Gap:
        """Give up the events before sequence number `to`, and return the gap."""
        log("stream.gap", run_id=self.position.run.id, after=self.position.last, before=to)
        return self.position.skip(to)

    async def aclose(self) -> None:
        """Close the segment that is being read. The next call of `next_batch` begins a new pass."""
        self._stream_has_more = True
        await self._close_segment()

    async def _next_archived(self) -> Sequence[Event | Gap]:
        """Return the next events of the archive; empty if the record names no segment with later events."""
        while segment := self._segment or self.position.segment():
            if self._segment_events is None:
                self._segment = segment
                self._segment_events = self._archive.read(self.position.run, segment, after=self.position.last)
            try:
                async for events in self._segment_events:
                    if fresh := self.position.take(events):
                        return fresh
            except FileMissing:
                # Raises RunGone if the segment is missing because the run has been deleted. Otherwise it is a gap.
                await self.refresh()
            await self._close_segment()
            if self.position.last < segment.last:
                return [self.skip(segment.last + 1)]
        return []

    async def _next_streamed(self) -> Sequence[Event | Gap]:
        """Return the next events of the Redis stream; empty if there are none, or if they have been archived."""
        position = self.position
        events, has_more = await self._store.read(position.run.id, after=position.last)
        first_after_hole = None
        fresh: Sequence[Event | Gap] = position.take(events)
        if not fresh and (first_after_hole := position.first_after_hole(events)):
            # The events in between were archived after the record was read, or they are lost.
            await self.refresh()
            if position.segment() is None:
                fresh = [self.skip(first_after_hole), *position.take(events)]
        self._stream_has_more = has_more or first_after_hole is not None
        return fresh

    async def _close_segment(self) -> None:
        segment_events, self._segment, self._segment_events = self._segment_events, None, None
        if segment_events is not None:
            await segment_events.aclose()


class CatchUp:
    """Reads stored events until no event before `early` is missing, then gives out `early`.

    `early` are published events that arrived before their predecessors; without them one pass is made. `to_end` reads
    until the last event that the run's record names. Events that LAG_TRIES passes do not find become a Gap.
    """

    def __init__(self, stored: StoredLog, early: Sequence[Event] = (), *, to_end: bool = False) -> None:
        self._stored = stored
        self._early = early
        self._to_end = to_end
        self._attempt = 0

    async def next_batch(self) -> Sequence[Event | Gap] | None:
        """Return the next events, or None once nothing is missing."""
        position = self._stored.position
        while self._attempt < LAG_TRIES:
            if items := await self._stored.next_batch():
                return items
            if self._first_after_hole() is None:
                self._attempt = LAG_TRIES
            else:
                await asyncio.sleep(backoff_s(self._attempt))
                self._attempt += 1
        if first := self._first_after_hole():
            return [self._stored.skip(first), *position.take(self._early)]
        return position.take(self._early) or None

    def _first_after_hole(self) -> int | None:
        position = self._stored.position
        if self._to_end:
            return position.run.seq + 1 if position.is_short() else None
        return position.first_after_hole(self._early)
