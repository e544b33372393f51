"""Pages of a log: forwards from an event, or backwards from its end or from before an event.

A page looks at a bounded part of the log, so with a filter it can have few events or none; it says where to go on.
"""

from collections.abc import Sequence
from contextlib import aclosing

import msgspec

from edge_api.http.response_models import Gap
from edge_api.logs.backwards import BackwardReader
from edge_api.logs.filters import EVERY_EVENT, EventFilter
from edge_api.logs.frames import frame
from edge_api.logs.limits import ENOUGH_BYTES, MAX_READS, TAIL_PAGES
from edge_api.logs.position import Position
from edge_api.logs.stored import StoredLog
from infra.contract.log import Event, LogArchive, RunLog
from infra.contract.redis_store.reader import RunReader


class EventPage(msgspec.Struct, frozen=True):
    """Events of a log that a reader wants, in order, from the part of the log that was looked at.

    The part is `first` to `last`, and is empty if `last` is `first - 1`. `gap`: the events of the part that are not
    stored; forwards it is before the events of the page, backwards after them.
    """

    events: Sequence[Event]
    gap: Gap | None
    first: int
    last: int


class LogPages:
    """Reads pages of logs. Methods raise StoreUnavailable, FilesUnavailable, RunGone."""

    def __init__(self, store: RunReader, archive: LogArchive) -> None:
        self._store = store
        self._archive = archive

    async def forwards(self, run: RunLog, after: int, limit: int, wanted: EventFilter = EVERY_EVENT) -> EventPage:
        """Return events after `after`, at most `limit` and about ENOUGH_BYTES. The part that was looked at follows."""
        position = Position(run, after)
        events: list[Event] = []
        gap: Gap | None = None
        last, size, reads = after, 0, 0
        async with aclosing(StoredLog(self._store, self._archive, position)) as stored:
            while reads < MAX_READS and (items := await stored.next_batch()):
                reads += 1
                for item in items:
                    if isinstance(item, Gap):
                        # A page states at most one gap, before its events; a later one begins the next page.
                        if events or gap:
                            return EventPage(events, gap, after + 1, last)
                        gap, last = item, item.last
                        continue
                    last = item.seq
                    if wanted.matches(item):
                        events.append(item)
                        size += len(frame(item))
                        if len(events) >= limit or size >= ENOUGH_BYTES:
                            return EventPage(events, gap, after + 1, last)
            if last == after and position.is_short():
                gap = stored.skip(position.run.seq + 1)
                last = gap.last
        return EventPage(events, gap, after + 1, last)

    async def backwards(
        self, run: RunLog, before: int | None, limit: int, wanted: EventFilter = EVERY_EVENT
    ) -> EventPage:
        """Return the last events, or the last ones before seq `before`, at most `limit` and about ENOUGH_BYTES."""
        reader = BackwardReader(self._store, self._archive, run, wanted, limit)
        end = await reader.read(before)
        return EventPage(list(reader.events), reader.gap, reader.before, end - 1)

    async def before_last(self, run: RunLog, count: int, wanted: EventFilter = EVERY_EVENT) -> int:
        """Return the seq of the event before the last `count` wanted ones, or before the ones in TAIL_PAGES pages.

        Without any, the search ends with the first page that has no gap either, and the seq is that of the last event.
        """
        page = await self.backwards(run, None, count, wanted)
        after = page.last
        for _ in range(TAIL_PAGES):
            if page.events:
                after = page.events[0].seq - 1
                count -= len(page.events)
            if count <= 0 or page.first <= 1 or not (page.events or page.gap):
                break
            page = await self.backwards(run, page.first, count, wanted)
        return after
