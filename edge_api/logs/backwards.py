"""Stored part of a log, read backwards: from its end, or from before an event, towards its beginning.

Memory does not grow with the length of the log: at most one compressed segment, one piece of it decompressed, and the
events of the answer are held. A segment can only be decompressed from its start, so the reader walks through a segment
and keeps the last events that are wanted.
"""

from collections import deque
from contextlib import aclosing

from edge_api.http.request_models import MAX_EVENTS
from edge_api.http.response_models import Gap
from edge_api.logs.filters import EventFilter
from edge_api.logs.frames import frame
from edge_api.logs.limits import ENOUGH_BYTES, MAX_READS
from edge_api.logs.position import Position
from edge_api.logs.stored import StoredLog
from infra.contract.errors import FileMissing
from infra.contract.log import Event, LogArchive, RunLog, Segment
from infra.contract.redis_store.reader import RunReader
from infra.contract.states import TERMINAL
from infra.logging import log


class Window:
    """Last events of a sequence: at most `limit`, and at most about `size_bytes` of frames but at least one."""

    def __init__(self, limit: int, size_bytes: int) -> None:
        self._limit = limit
        self._size_bytes = size_bytes
        self._sizes: deque[int] = deque()
        self._size = 0
        self.events: deque[Event] = deque()
        self.has_dropped = False

    def add(self, event: Event) -> None:
        """Append an event; drop the first ones if there are too many."""
        self.events.append(event)
        self._sizes.append(len(frame(event)))
        self._size += self._sizes[-1]
        while len(self.events) > self._limit or (self._size > self._size_bytes and len(self.events) > 1):
            self.events.popleft()
            self._size -= self._sizes.popleft()
            self.has_dropped = True

    @property
    def size(self) -> int:
        """Bytes of the frames of the events."""
        return self._size


class BackwardReader:
    """One read of a log towards its beginning.

    After `read`, `events` are the events found, in order, `before` is the number of the first event that was looked at,
    and `gap` are events that are not stored, if there are any directly after the events found.
    """

    def __init__(self, store: RunReader, archive: LogArchive, run: RunLog, wanted: EventFilter, limit: int) -> None:
        self._store = store
        self._archive = archive
        self._run = run
        self._wanted = wanted
        self._limit = limit
        self._size = 0
        self._reads = 0
        self._is_complete = False
        self.events: deque[Event] = deque()
        self.gap: Gap | None = None
        self.before = 1

    async def read(self, before: int | None) -> int:
        """Read from the end of the log, or from before seq `before`. Return the number of the first event not read.

        Raises StoreUnavailable, FilesUnavailable, RunGone.
        """
        end = before if before is not None and before <= self._run.seq + 1 else await self._end(before)
        self.before = end
        while self.before > 1 and not self._is_complete and self._reads < MAX_READS:
            if self.before - 1 <= self._run.archived:
                await self._read_segment(next(each for each in self._run.segments if each.last >= self.before - 1))
            else:
                await self._read_stream()
        return end

    async def _end(self, before: int | None) -> int:
        """Return the number after the last event, but at most `before`."""
        last = self._run.seq
        if self._run.status not in TERMINAL:
            # Redis may have later events than the record or, on a replica that lags behind, earlier ones only. What the
            # replica lacks is no gap: a later request finds it.
            newest = await self._store.read_back(self._run.id, before=None, entries=1)
            if not newest and self._run.archived < last:
                # The events were archived after the record was read, or they are lost.
                await self._refresh()
            last = newest[-1].seq if newest else self._run.archived
        return last + 1 if before is None else min(before, last + 1)

    async def _read_stream(self) -> None:
        """Read events that are in Redis."""
        # Each entry has at least one event. With a filter, it may have none that is wanted.
        entries = MAX_EVENTS if self._wanted else self._limit - len(self.events)
        events = await self._store.read_back(self._run.id, before=self.before, entries=entries)
        self._reads += 1
        last = events[-1].seq if events else 0
        if last < self.before - 1:
            # The events in between were archived after the record was read, or they are lost.
            await self._refresh()
            if self.before - 1 > self._run.archived:
                self._skip(max(last, self._run.archived) + 1)
            return
        for event in reversed(events):
            # Redis may still hold the last event of the archive.
            if event.seq != self.before - 1 or event.seq <= self._run.archived or self._is_complete:
                return
            self._take(event)

    def _take(self, event: Event) -> None:
        """Look at the event before the first one."""
        if self._wanted.matches(event):
            size = len(frame(event))
            if self.events and self._size + size > ENOUGH_BYTES:
                self._is_complete = True
                return
            self.events.appendleft(event)
            self._size += size
            self._is_complete = len(self.events) >= self._limit
        self.before = event.seq

    async def _read_segment(self, segment: Segment) -> None:
        """Read the part of a segment that is before the first event."""
        after = segment.first - 1
        # Without a filter, the number of events says where those that are wanted begin.
        start = after if self._wanted else max(after, self.before - 1 - (self._limit - len(self.events)))
        window, last = await self._walk(segment, start)
        if last < self.before - 1 and start > after:
            # The segment is damaged or missing. Only a walk from its start shows which events are readable.
            start = after
            window, last = await self._walk(segment, start)
        if last < self.before - 1 and not self._skip(last + 1):
            return
        self.events.extendleft(reversed(window.events))
        self._size += window.size
        self.before = window.events[0].seq if window.has_dropped else start + 1
        self._is_complete = window.has_dropped or len(self.events) >= self._limit

    async def _walk(self, segment: Segment, start: int) -> tuple[Window, int]:
        """Return the last events of the segment that are wanted, and the number of the last readable event.

        Looks at the events after `start` and before the first event.
        """
        window = Window(self._limit - len(self.events), ENOUGH_BYTES - self._size)
        last = start
        try:
            async with aclosing(self._archive.read(self._run, segment, after=start)) as batches:
                async for batch in batches:
                    self._reads += 1
                    for event in batch:
                        if event.seq >= self.before:
                            return window, last
                        last = event.seq
                        if self._wanted.matches(event):
                            window.add(event)
                    if last == self.before - 1:
                        return window, last
        except FileMissing:
            # Raises RunGone if the segment is missing because the run has been deleted.
            self._reads += 1
            await self._refresh()
        return window, last

    def _skip(self, first: int) -> bool:
        """Give up the events from `first` up to before the first event; return whether reading goes on.

        A page states at most one gap, after its events; another one begins the next page.
        """
        if self.events or self.gap:
            self._is_complete = True
            return False
        log("stream.gap", run_id=self._run.id, after=first - 1, before=self.before)
        self.gap = Gap(first=first, last=self.before - 1)
        self.before = first
        return True

    async def _refresh(self) -> None:
        """Read the run's record again. Raises RunGone if the run has been deleted."""
        stored = StoredLog(self._store, self._archive, Position(self._run, 0))
        await stored.refresh()
        self._run = stored.position.run
