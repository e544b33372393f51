"""Server-sent events as bytes, and batches of a live log, which are decoded and framed once for all clients."""

from collections.abc import Iterator, Sequence
from functools import cached_property

import msgspec

from edge_api.http.response_models import Gap, LogEvent, Skipped
from edge_api.logs.items import Item
from infra.contract.log import Event
from infra.contract.redis_store import codec

CHUNK_BYTES = 64 * 1024
# One line each, without an empty line after it: that would end an event without data, which some clients dispatch.
RETRY = b"retry: 1000\n"
PING = b": ping\n"

_encode = msgspec.json.Encoder().encode


class LiveBatch(list[Event]):
    """Events of published messages, in order and without a hole. Empty and `damaged` if the message is no batch.

    `size` is the length of the messages in characters.
    """

    def __init__(self, events: Sequence[Event], size: int, parts: "Sequence[LiveBatch]" = ()) -> None:
        super().__init__(events)
        self.size = size
        self.damaged = not events
        self._parts = parts
        self._joined: LiveBatch | None = None

    @classmethod
    def decode(cls, message: str) -> "LiveBatch":
        """Return the batch of one published message."""
        try:
            return cls(codec.decode_batch(message), len(message))
        except msgspec.DecodeError:
            return cls((), len(message))

    @cached_property
    def framed(self) -> bytes:
        """The whole batch as server-sent events."""
        if self._parts:
            return b"".join([part.framed for part in self._parts])
        return b"".join(map(frame, self))

    def join(self, later: "LiveBatch") -> "LiveBatch | None":
        """Return both batches as one; None if `later` does not continue this one, or both are more than a chunk.

        All clients that are equally far behind get the same object, so that it is framed once.
        """
        size = self.size + later.size
        if not self or not later or later[0].seq != self[-1].seq + 1 or size > CHUNK_BYTES:
            return None
        if self._joined is None or self._joined[-1] is not later[-1]:
            self._joined = LiveBatch([*self, *later], size, [*(self._parts or [self]), later])
        return self._joined


def frame(item: Item) -> bytes:
    """Return an item as a server-sent event: unnamed with its seq as id, or named `gap`, `skipped` or `end`."""
    # The data is one line, because JSON escapes line ends inside strings.
    if isinstance(item, Event):
        return b"id: %d\ndata: %b\n\n" % (item.seq, _encode(LogEvent.of(item)))
    if isinstance(item, Gap):
        return b"event: gap\nid: %d\ndata: %b\n\n" % (item.last, _encode(item))
    if isinstance(item, Skipped):
        return b"event: skipped\nid: %d\ndata: %b\n\n" % (item.last, _encode(item))
    return b"event: end\ndata: %b\n\n" % _encode(item)


def chunks(items: Sequence[Item]) -> Iterator[bytes]:
    """Yield the frames of the items in chunks of whole frames, each of about CHUNK_BYTES.

    A chunk is small enough for a slow client to take it within the stall time.
    """
    if isinstance(items, LiveBatch):
        yield items.framed
        return
    chunk = bytearray()
    for item in items:
        chunk += frame(item)
        if len(chunk) >= CHUNK_BYTES:
            yield bytes(chunk)
            chunk.clear()
    if chunk:
        yield bytes(chunk)
