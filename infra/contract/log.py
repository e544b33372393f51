"""Log of a run: events, archive segments, and the ports to live messages and to the archive."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Protocol

import msgspec

from infra.contract.runs import RunHead

TERMINAL_EVENT: Final = "run.finished"


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Event of a run's log. `seq` is 1, 2, 3 … without a gap; `ts` is ms since the epoch; `step` counts from 0."""

    seq: int
    ts: int
    type: str
    step: int | None = None
    data: dict[str, Any] = {}


class NewEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Event before it has its sequence number, which only the scripts assign.

    `type` is one of `events.EVENTS`, or a type of a newer release: readers pass on types they do not know.
    """

    ts: int
    type: str
    step: int | None = None
    data: dict[str, Any] = {}


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Events appended and published by one emit, as the same bytes in both places; the first one has seq `first`."""

    first: int
    events: list[NewEvent]

    def numbered(self) -> list[Event]:
        """Return the events with their sequence numbers."""
        numbered = enumerate(self.events, self.first)
        return [Event(seq=n, ts=event.ts, type=event.type, step=event.step, data=event.data) for n, event in numbered]


class Segment(msgspec.Struct, frozen=True, array_like=True):
    """Part of a log in the archive: the events `first` to `last`, stored by the claim with the random number `writer`.

    The segments of a run are contiguous from event 1. No other claim writes the same object, so a segment named by a
    record always refers to the same bytes. Earlier releases have the fence as `writer`, which a Redis that has lost its
    last changes gives to two claims.
    """

    first: int
    last: int
    writer: int

    def object_name(self, created_ms: int) -> str:
        """Return the object key, without the run's prefix, of a segment of the run that was created then."""
        # With the time, because a run id may be used again after the run was deleted.
        return f"log/{created_ms}-{self.first:010}-{self.last}-{self.writer}.ndjson.gz"


class RunLog(RunHead, frozen=True, kw_only=True):
    """Run as readers of its log need it: events in the archive are no longer in Redis."""

    segments: Sequence[Segment] = ()

    @property
    def archived(self) -> int:
        """Sequence number of the last event in the archive; 0 if there is none."""
        return self.segments[-1].last if self.segments else 0


class LogFeed(Protocol):
    """Live messages of a channel."""

    def subscribe(self, channel: str) -> AbstractAsyncContextManager[AsyncIterator[str]]:
        """Enter once the subscription is confirmed; iterate over messages until the upstream ends.

        Raises StoreUnavailable if the subscription fails. The iterator ends without an error when the upstream ends.
        """
        ...


class LogArchive(Protocol):
    """Segments of logs in the object store. Every method raises FilesUnavailable if that fails, and HostExhausted."""

    async def store(self, run: RunHead, segment: Segment, events: Sequence[Event]) -> None:
        """Store the events of a segment. The segment counts once the run's record names it."""
        ...

    async def discard(self, run: RunHead, segment: Segment) -> None:
        """Delete a segment that no record names."""
        ...

    def read(self, run: RunHead, segment: Segment, *, after: int) -> AsyncGenerator[list[Event], None]:
        """Yield the events of a segment from seq `after + 1` on, in batches. Raises FileMissing."""
        ...
