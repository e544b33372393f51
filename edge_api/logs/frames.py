"""Server-sent events as bytes, and the batches of a live log, which are read and framed once for all who follow it."""

from collections.abc import Iterator, Sequence
from functools import cached_property

import msgspec

from edge_api.http.response_models import Gap, LogEvent, StreamEnd
from infra.contract.log import Event
from infra.contract.redis_store import codec

CHUNK_BYTES = 64 * 1024
# Lines of an event to come: an empty line here would be an event without data, which some clients hand out.
RETRY = b"retry: 1000\n"
PING = b": ping\n"

_encode = msgspec.json.Encoder().encode


class LiveBatch(list[Event]):
    """The events of one published message, in order and without a hole; empty and `damaged` if it is none.

    `size` is that of the message.
    """

    def __init__(self, message: str) -> None:
        self.size = len(message)
        self.damaged = False
        try:
            super().__init__(codec.decode_batch(message))
        except msgspec.DecodeError:
            self.damaged = True

    @cached_property
    def framed(self) -> bytes:
        """All of it as server-sent events."""
        return b"".join(map(frame, self))


def frame(item: Event | Gap | StreamEnd) -> bytes:
    """One item as an event: unnamed with its seq as id, or named `gap` or `end`. JSON has no line end inside."""
    if isinstance(item, Event):
        return b"id: %d\ndata: %b\n\n" % (item.seq, _encode(LogEvent.of(item)))
    if isinstance(item, Gap):
        return b"event: gap\nid: %d\ndata: %b\n\n" % (item.last, _encode(item))
    return b"event: end\ndata: %b\n\n" % _encode(item)


def chunks(items: Sequence[Event | Gap | StreamEnd]) -> Iterator[bytes]:
    """The frames of the items in pieces of whole frames, small enough that even a slow client can take one in time."""
    if isinstance(items, LiveBatch):
        yield items.framed
        return
    piece = bytearray()
    for item in items:
        piece += frame(item)
        if len(piece) >= CHUNK_BYTES:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)
