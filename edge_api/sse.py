"""Server-sent events: framing, and one client's response from its first byte to its last."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, suppress

import msgspec
from starlette.types import Receive, Scope, Send

from edge_api.schemas import Gap, LogEvent, StreamEnd
from edge_api.settings import ApiSettings
from infra.contract.models import Event
from infra.logging import log

CHUNK_BYTES = 64 * 1024
# Lines of an event to come: an empty line here would be an event without data, which some clients hand out.
RETRY = b"retry: 1000\n"
PING = b": ping\n"
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
]
_PARTING_S = 1.0

_encode = msgspec.json.Encoder().encode


def frame(item: Event | Gap | StreamEnd) -> bytes:
    """One item as an event: unnamed with its seq as id, or named `gap` or `end`. JSON has no line end inside."""
    if isinstance(item, Event):
        return b"id: %d\ndata: %b\n\n" % (item.seq, _encode(LogEvent.of(item)))
    if isinstance(item, Gap):
        return b"event: gap\nid: %d\ndata: %b\n\n" % (item.last, _encode(item))
    return b"event: end\ndata: %b\n\n" % _encode(item)


def chunks(items: Sequence[Event | Gap | StreamEnd]) -> Iterator[bytes]:
    """The frames of the items in pieces of whole frames, small enough that even a slow client can take one in time."""
    piece = bytearray()
    for item in items:
        piece += frame(item)
        if len(piece) >= CHUNK_BYTES:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)


class Streams:
    """The streams that are open, so that a shutdown can end them instead of waiting for clients that never leave."""

    def __init__(self) -> None:
        self._open: set[asyncio.Event] = set()
        self._ending = False

    def __len__(self) -> int:
        return len(self._open)

    def enter(self) -> asyncio.Event:
        """Register a stream; the event is set when it has to end."""
        stop = asyncio.Event()
        self._open.add(stop)
        if self._ending:
            stop.set()
        return stop

    def leave(self, stop: asyncio.Event) -> None:
        """The stream has ended."""
        self._open.discard(stop)

    def end(self) -> None:
        """End all streams, and those to come at once. Clients reconnect elsewhere with their last id."""
        self._ending = True
        for stop in self._open:
            stop.set()


class EventStream:
    """A response that sends items as they come; ASGI.

    Ends with the source, after the hold time, when the client leaves, when a piece could not be handed over within
    the stall time, or at shutdown. However it ends, the source is closed and no task is left.
    Not a StreamingResponse: that one leaves a source unclosed whose client goes away during a send.
    """

    def __init__(
        self,
        run_id: str,
        source: AsyncGenerator[Sequence[Event | Gap | StreamEnd], None],
        settings: ApiSettings,
        streams: Streams,
    ) -> None:
        self._run_id = run_id
        self._source = source
        self._settings = settings
        self._streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        if scope["method"] == "HEAD":
            await self._source.aclose()
            await send({"type": "http.response.body"})
            return
        stop = self._streams.enter()
        tasks = [asyncio.create_task(work) for work in (self._send_all(send), _left(receive), _set(stop))]
        try:
            hold_s = self._settings.stream_hold_s or None
            await asyncio.wait(tasks, timeout=hold_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._streams.leave(stop)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(_PARTING_S):
                await send({"type": "http.response.body"})

    async def _send_all(self, send: Send) -> None:
        async def piece(body: bytes) -> None:
            async with asyncio.timeout(self._settings.stream_stall_s):
                await send({"type": "http.response.body", "body": body, "more_body": True})

        try:
            async with aclosing(self._source) as source:
                await piece(RETRY)
                while (items := await self._next(source, piece)) is not None:
                    for body in chunks(items):
                        await piece(body)
        except TimeoutError:
            log("stream.stalled", run_id=self._run_id)
        except Exception as exc:  # noqa: BLE001
            log("stream.failed", level=logging.ERROR, error=exc, run_id=self._run_id)

    async def _next(
        self,
        source: AsyncGenerator[Sequence[Event | Gap | StreamEnd], None],
        piece: Callable[[bytes], Awaitable[None]],
    ) -> Sequence[Event | Gap | StreamEnd] | None:
        """The next items, with pings while there are none; None at the end."""
        coming = asyncio.ensure_future(anext(source, None))
        try:
            while not (await asyncio.wait({coming}, timeout=self._settings.stream_ping_s))[0]:
                await piece(PING)
            return await coming
        finally:
            if not coming.done():
                coming.cancel()
                await asyncio.gather(coming, return_exceptions=True)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _set(stop: asyncio.Event) -> None:
    await stop.wait()
