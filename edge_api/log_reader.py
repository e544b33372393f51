"""Following a run's log without skipping, repeating or polling: replay from the stream, then live from the channel."""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import TypeAlias

import msgspec

from edge_api.fanout import Fanout
from edge_api.schemas import Gap, StreamEnd
from infra.contract import codec
from infra.contract.errors import RunGone, StoreUnavailable
from infra.contract.models import TERMINAL_EVENT, Event, RunHead
from infra.contract.reader import RunReader
from infra.contract.states import TERMINAL
from infra.logging import log

Item: TypeAlias = Event | Gap | StreamEnd

Older: TypeAlias = Callable[[str, int, int], Awaitable[list[Event]]]
"""The archive's seam: called with run id, `after` and `before`, gives the next events with after < seq < before that
the stream no longer has; empty if there are none."""

RETRY_FIRST_S = 0.05
RETRY_LAST_S = 5.0
LAG_TRIES = 5
"""How often a hole is looked for in the stream before it is called a gap: a replica may lag behind its publisher."""


class Place:
    """How far one reader has come in a log: everything up to `last` has been given out, in order."""

    def __init__(self, run_id: str, last: int) -> None:
        self.run_id = run_id
        self.last = last

    def take(self, events: Sequence[Event]) -> list[Event]:
        """Those that follow without a hole, each once and in order, whatever order and repeats they come in."""
        taken = []
        for event in sorted(events, key=_seq):
            if event.seq == self.last + 1:
                taken.append(event)
                self.last = event.seq
        return taken

    def beyond(self, events: Sequence[Event]) -> int | None:
        """The first sequence number after a hole, if there is one among the events."""
        return min((event.seq for event in events if event.seq > self.last), default=None)

    def skip(self, to: int) -> Gap:
        """Give up on all before sequence number `to`."""
        gap = Gap(first=self.last + 1, last=to - 1)
        self.last = to - 1
        return gap

    def is_end(self, run: RunHead) -> bool:
        """Whether the run has ended and its log ends here. A retried run has later events."""
        return run.status in TERMINAL and run.seq == self.last

    def is_short_of(self, run: RunHead) -> bool:
        """Whether the run has ended and its log goes further than this."""
        return run.status in TERMINAL and run.seq > self.last


class LogReader:
    """Reads logs for any number of clients; one subscription for each run is shared by all of them."""

    def __init__(self, store: RunReader, fanout: Fanout, older: Older | None = None) -> None:
        self._store = store
        self._fanout = fanout
        self._older = older

    async def page(self, run: RunHead, after: int, limit: int) -> list[Event | Gap]:
        """At most `limit` events after `after`, without a hole but for a gap at the front. Raises StoreUnavailable."""
        place = Place(run.id, after)
        events = await self._store.events(run.id, after=after, limit=limit)
        if not events and place.is_short_of(run):
            return await self._bridge(place, [], run.seq + 1)
        found: list[Event | Gap] = list(place.take(events))
        return found or await self._bridge(place, events, place.beyond(events))

    async def follow(self, run: RunHead, after: int) -> AsyncGenerator[list[Item], None]:
        """All events after `after` as they come, until the log's last one has been given out, then a StreamEnd.

        Ends without StreamEnd if the run is deleted. An upstream that fails is tried again for ever; a hole that
        cannot be filled is given out as a Gap. Close the generator when its client has gone.
        """
        place, failures = Place(run.id, after), 0
        known: RunHead | None = run
        while True:
            begun = asyncio.get_running_loop().time()
            try:
                # Whatever ended the last try, the run may have ended meanwhile: an old record would wait for ever.
                run, known = known or await self._record(place), None
                async with aclosing(self._to_end(place, run)) as batches:
                    async for items in batches:
                        yield items
                        if isinstance(items[-1], StreamEnd):
                            return
            except StoreUnavailable as exc:
                log("stream.retry", run_id=run.id, after=place.last, reason=str(exc))
            except RunGone:
                return
            lived_s = asyncio.get_running_loop().time() - begun
            failures = 0 if lived_s > RETRY_LAST_S else failures + 1
            await asyncio.sleep(_backoff(failures))

    async def _to_end(self, place: Place, run: RunHead) -> AsyncGenerator[list[Item], None]:
        """The log as long as its source lasts, and a StreamEnd if that was its end."""
        source = self._replay(place, run) if run.status in TERMINAL else self._watch(place, run)
        async with aclosing(source) as batches:
            async for items in batches:
                yield items
                if _is_terminal(items[-1]) and not place.is_end(run):
                    run = await self._record(place)
                if place.is_end(run):
                    break
        if place.is_end(run):
            yield [StreamEnd(status=run.status, last_seq=run.seq)]

    async def _replay(self, place: Place, run: RunHead) -> AsyncGenerator[list[Item], None]:
        """The log of a run that has ended, as far as its record goes: needs no subscription."""
        for attempt in range(LAG_TRIES):
            async with aclosing(self._stored(place)) as batches:
                async for items in batches:
                    yield items
            if not place.is_short_of(run):
                return
            await asyncio.sleep(_backoff(attempt))
        while place.is_short_of(run):
            yield list[Item](await self._bridge(place, [], run.seq + 1))

    async def _watch(self, place: Place, run: RunHead) -> AsyncGenerator[list[Item], None]:
        """The log up to now and live from then on; ends when the subscription does."""
        with self._fanout.join(self._store.keys.channel(place.run_id)) as listener:
            if run.seq > place.last:
                # What is known to be there is shown while the subscription is being confirmed.
                async with aclosing(self._stored(place)) as batches:
                    async for items in batches:
                        yield items
            await listener.confirmed()
            async with aclosing(self._stored(place)) as batches:
                async for items in batches:
                    yield items
            async for messages in listener:
                events, damaged = _decode(messages)
                if fresh := place.take(events):
                    yield list[Item](fresh)
                if damaged or place.beyond(events):
                    async with aclosing(self._heal(place, events)) as batches:
                        async for items in batches:
                            yield items

    async def _stored(self, place: Place) -> AsyncGenerator[list[Item], None]:
        """What the stream holds after the reader's place, one round trip at a time."""
        more = True
        while more:
            events, more = await self._store.read(place.run_id, after=place.last)
            while events:
                fresh: list[Event | Gap] = list(place.take(events))
                found = fresh or await self._bridge(place, events, place.beyond(events))
                if not found:
                    break
                yield list[Item](found)

    async def _heal(self, place: Place, events: Sequence[Event]) -> AsyncGenerator[list[Item], None]:
        """Fill the hole before events that came too early, from the stream; without such events just catch up."""
        for attempt in range(LAG_TRIES):
            async with aclosing(self._stored(place)) as batches:
                async for items in batches:
                    yield items
            if place.beyond(events) is None:
                return
            await asyncio.sleep(_backoff(attempt))
        while (first := place.beyond(events)) is not None:
            yield [place.skip(first), *place.take(events)]

    async def _record(self, place: Place) -> RunHead:
        """The record as of the reader's place: one whose log is shorter comes from a replica that lags behind."""
        run = await self._store.head(place.run_id)
        for attempt in range(LAG_TRIES):
            if run.seq >= place.last:
                break
            await asyncio.sleep(_backoff(attempt))
            run = await self._store.head(place.run_id)
        return run

    async def _bridge(self, place: Place, events: Sequence[Event], first: int | None) -> list[Event | Gap]:
        """Across a hole that ends before `first`: from the archive if it has it, else a gap and what comes after."""
        if first is None:
            return []
        if self._older is not None:
            archived = place.take(await self._older(place.run_id, place.last, first))
            if archived:
                return list[Event | Gap](archived)
        log("stream.gap", run_id=place.run_id, after=place.last, before=first)
        return [place.skip(first), *place.take(events)]


def _decode(messages: Sequence[str]) -> tuple[list[Event], bool]:
    """The events of the messages, and whether any message was damaged."""
    events: list[Event] = []
    damaged = False
    for message in messages:
        try:
            events += codec.decode_batch(message)
        except msgspec.DecodeError:
            damaged = True
    return events, damaged


def _is_terminal(item: Item) -> bool:
    return isinstance(item, Event) and item.type == TERMINAL_EVENT


def _seq(event: Event) -> int:
    return event.seq


def _backoff(failures: int) -> float:
    """Seconds to wait, with jitter: all clients of a run lose their upstream at the same moment."""
    return min(RETRY_LAST_S, RETRY_FIRST_S * 2.0 ** min(failures, 10)) * random.uniform(0.5, 1.0)  # noqa: S311
