"""Following a run's log without skipping, repeating or polling: replay what is kept, then live from the channel."""

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TypeAlias

from edge_api.http.response_models import Gap, StreamEnd
from edge_api.logs.fanout import Fanout, Listener
from edge_api.logs.frames import frame
from edge_api.logs.position import Place
from infra.contract.errors import FileMissing, FilesUnavailable, RunGone, StoreUnavailable
from infra.contract.log import TERMINAL_EVENT, Event, LogArchive, RunLog, Segment
from infra.contract.redis_store.reader import RunReader
from infra.contract.states import TERMINAL
from infra.logging import log

Item: TypeAlias = Event | Gap | StreamEnd

RETRY_FIRST_S = 0.05
RETRY_LAST_S = 5.0
LOOK_S = 1.0
"""After so long until it hears what is new, a reader looks whether the run is still there."""
QUIET_S = 2.0
"""Who hears nothing for so long after joining reads once more: what came just before it may not have been readable."""
LAG_TRIES = 5
"""How often a hole is looked for in the stream before it is called a gap: a replica may lag behind its publisher."""
ENOUGH_BYTES = 1024 * 1024
"""Where an answer that is no stream is cut. Lambda takes 6 MB, in which a text can be three times as long: it is JSON
once more."""


class LogReader:
    """Reads logs for any number of clients; one subscription for each run is shared by all of them."""

    def __init__(self, store: RunReader, fanout: Fanout, archive: LogArchive) -> None:
        self._store = store
        self._fanout = fanout
        self._archive = archive

    async def page(self, run: RunLog, after: int, limit: int) -> list[Event | Gap]:
        """At most `limit` events after `after`, and not many more bytes than ENOUGH_BYTES, without a hole but for a gap
        at the front.

        Raises StoreUnavailable, FilesUnavailable.
        """
        place = Place(run, after)
        found: list[Event | Gap] = []
        size = 0
        async with aclosing(self._stored(place)) as batches:
            async for items in batches:
                for item in items:
                    if found and isinstance(item, Gap):
                        return found
                    found.append(item)
                    size += len(frame(item))
                    if len(found) >= limit or size >= ENOUGH_BYTES:
                        return found
        if not found and place.is_short():
            found = [self._skip(place, run.seq + 1)]
        return found

    async def follow(self, run: RunLog, after: int) -> AsyncGenerator[Sequence[Item], None]:
        """All events after `after` as they come, until the log's last one has been given out, then a StreamEnd.

        Ends without StreamEnd if the run is deleted. An upstream that fails is tried again for ever; a hole that
        cannot be filled is given out as a Gap. Close the generator when its client has gone.
        """
        place, failures, fresh = Place(run, after), 0, True
        while True:
            begun = asyncio.get_running_loop().time()
            try:
                # Whatever ended the last try, the run may have ended meanwhile: an old record would wait for ever.
                if not fresh:
                    await self._look(place)
                fresh = False
                async with aclosing(self._to_end(place)) as batches:
                    async for items in batches:
                        yield items
                        if isinstance(items[-1], StreamEnd):
                            return
            except (StoreUnavailable, FilesUnavailable) as exc:
                log("stream.retry", run_id=run.id, after=place.last, reason=str(exc))
            except RunGone:
                return
            lived_s = asyncio.get_running_loop().time() - begun
            failures = 0 if lived_s > RETRY_LAST_S else failures + 1
            await asyncio.sleep(_backoff(failures))

    async def _to_end(self, place: Place) -> AsyncGenerator[Sequence[Item], None]:
        """The log as long as its source lasts, and a StreamEnd if that was its end."""
        source = self._replay(place) if place.run.status in TERMINAL else self._watch(place)
        async with aclosing(source) as batches:
            async for items in batches:
                yield items
                if _is_terminal(items[-1]) and not place.is_end():
                    await self._look(place)
                if place.is_end():
                    break
        if place.is_end():
            yield [StreamEnd(status=place.run.status, last_seq=place.run.seq)]

    async def _replay(self, place: Place) -> AsyncGenerator[Sequence[Item], None]:
        """The log of a run that has ended, as far as its record goes: needs no subscription."""
        for attempt in range(LAG_TRIES):
            async with aclosing(self._stored(place)) as batches:
                async for items in batches:
                    yield items
            if not place.is_short():
                return
            await asyncio.sleep(_backoff(attempt))
        yield [self._skip(place, place.run.seq + 1)]

    async def _watch(self, place: Place) -> AsyncGenerator[Sequence[Item], None]:
        """The log up to now and live from then on; ends when the subscription does.

        What is known to be there is read before: it may be long, and all that a client of a long poll waits for.
        """
        begun = asyncio.get_running_loop().time()
        if place.run.seq > place.last:
            async with aclosing(self._stored(place)) as batches:
                async for items in batches:
                    yield items
        with self._fanout.join(self._store.keys.channel(place.run.id)) as listener:
            await listener.confirmed()
            if asyncio.get_running_loop().time() - begun > LOOK_S:
                await self._look(place)
            async with aclosing(self._stored(place)) as batches:
                async for items in batches:
                    yield items
            if not await listener.hears(QUIET_S):
                async with aclosing(self._stored(place)) as batches:
                    async for items in batches:
                        yield items
            async with aclosing(self._live(place, listener)) as batches:
                async for items in batches:
                    yield items

    async def _live(self, place: Place, listener: Listener) -> AsyncGenerator[Sequence[Event | Gap], None]:
        """What is heard, until the subscription ends."""
        async for batch in listener:
            if place.take_all(batch):
                yield batch
                continue
            if fresh := place.take(batch):
                yield fresh
            elif batch.damaged or any(map(_is_terminal, batch)):
                # The run has been deleted, or its log ends before what the client says that it has.
                await self._look(place)
                if place.is_end():
                    return
            if batch.damaged or place.beyond(batch):
                async with aclosing(self._heal(place, batch)) as batches:
                    async for items in batches:
                        yield items

    async def _heal(self, place: Place, events: Sequence[Event]) -> AsyncGenerator[Sequence[Event | Gap], None]:
        """Fill the hole before events that came too early from what is kept; without such events just catch up."""
        for attempt in range(LAG_TRIES):
            async with aclosing(self._stored(place)) as batches:
                async for items in batches:
                    yield items
            if place.beyond(events) is None:
                return
            await asyncio.sleep(_backoff(attempt))
        while (first := place.beyond(events)) is not None:
            yield [self._skip(place, first), *place.take(events)]

    async def _stored(self, place: Place) -> AsyncGenerator[Sequence[Event | Gap], None]:
        """What is kept after the reader's place: in the archive, then in the stream, one round trip at a time."""
        more = True
        while more:
            async with aclosing(self._archived(place)) as batches:
                async for items in batches:
                    yield items
            if place.is_end():
                return
            events, more = await self._store.read(place.run.id, after=place.last)
            if fresh := place.take(events):
                yield fresh
            elif first := place.beyond(events):
                # What is missing here has gone into the archive since the record was read, or is nowhere.
                await self._look(place)
                if place.segment() is None:
                    yield [self._skip(place, first), *place.take(events)]
                more = True

    async def _archived(self, place: Place) -> AsyncGenerator[Sequence[Event | Gap], None]:
        """What the archive holds after the reader's place, for all that is known."""
        while segment := place.segment():
            async with aclosing(self._unpacked(place, segment)) as batches:
                async for events in batches:
                    if fresh := place.take(events):
                        yield fresh
            if place.last < segment.last:
                yield [self._skip(place, segment.last + 1)]

    async def _unpacked(self, place: Place, segment: Segment) -> AsyncGenerator[list[Event], None]:
        """What there is of a segment. Raises RunGone if it is missing because the run has been deleted."""
        try:
            async with aclosing(self._archive.read(place.run, segment, after=place.last)) as batches:
                async for events in batches:
                    yield events
        except FileMissing:
            await self._look(place)

    async def _look(self, place: Place) -> None:
        """Read the record as of the reader's place. Raises RunGone.

        One whose log is shorter than what was heard comes from a replica that lags behind: StoreUnavailable if it
        goes on doing so. Another run of the same id is not this one.
        """
        created_ms = place.run.created_ms
        for attempt in range(LAG_TRIES):
            place.run = await self._store.log(place.run.id)
            if place.run.created_ms != created_ms:
                raise RunGone(f"the run '{place.run.id}' has been deleted")
            if place.run.seq >= place.heard:
                return
            await asyncio.sleep(_backoff(attempt))
        raise StoreUnavailable("the record of the run lags behind its log")

    def _skip(self, place: Place, to: int) -> Gap:
        log("stream.gap", run_id=place.run.id, after=place.last, before=to)
        return place.skip(to)


def _is_terminal(item: Item) -> bool:
    return isinstance(item, Event) and item.type == TERMINAL_EVENT


def _backoff(failures: int) -> float:
    """Seconds to wait, with jitter: all clients of a run lose their upstream at the same moment."""
    return min(RETRY_LAST_S, RETRY_FIRST_S * 2.0 ** min(failures, 10)) * random.uniform(0.5, 1.0)  # noqa: S311
