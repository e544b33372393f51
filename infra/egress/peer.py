"""One side of the proxy: HTTP/1.1 over a stream, read and written by h11, so that nothing is passed on unparsed."""

import asyncio
from collections.abc import Callable, Iterable
from typing import TypeAlias

import h11

HEAD_BYTES = 32 * 1024
"""Limit for a head, which may hold a token with a long allow list."""
CHUNK_BYTES = 64 * 1024

Event: TypeAlias = (
    h11.Request | h11.Response | h11.InformationalResponse | h11.Data | h11.EndOfMessage | h11.ConnectionClosed
)

Headers: TypeAlias = Iterable[tuple[bytes, bytes]]

_HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
"""Headers of one connection, which are not passed on."""


class HttpPeer:
    """Program (`role` h11.SERVER) or server (h11.CLIENT). `count` gets the bytes that are sent and received."""

    def __init__(
        self,
        role: type[h11.CLIENT] | type[h11.SERVER],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        count: Callable[[int, int], None] = lambda _sent, _received: None,
    ) -> None:
        self.http = h11.Connection(role, max_incomplete_event_size=HEAD_BYTES)
        self.reader = reader
        self.writer = writer
        self._count = count

    async def next_event(self) -> Event:
        """Return the next event. Raises h11.RemoteProtocolError, OSError."""
        while True:
            event = self.http.next_event()
            if isinstance(event, Event):
                return event
            if event is h11.PAUSED:
                raise h11.RemoteProtocolError("more than one message was sent")
            if self.http.they_are_waiting_for_100_continue:
                await self.send(h11.InformationalResponse(status_code=100, headers=[]))
            data = await self.reader.read(CHUNK_BYTES)
            if data:
                self._count(0, len(data))
            self.http.receive_data(data)

    async def send(self, event: Event) -> None:
        """Send an event. Raises h11.LocalProtocolError, OSError."""
        if data := self.http.send(event):
            self._count(len(data), 0)
            self.writer.write(data)
            await self.writer.drain()

    def abort(self) -> None:
        """Close the connection without sending the rest."""
        self.writer.transport.abort()


def passed_on(headers: Headers, *also_dropped: bytes) -> list[tuple[bytes, bytes]]:
    """Return the headers for the other side, with a framing that is not ambiguous."""
    nominated = {
        name.strip().lower() for header, value in headers if header == b"connection" for name in value.split(b",")
    }
    dropped = {*_HOP_BY_HOP, *also_dropped, *nominated} - {b"content-length"}
    if is_chunked(headers):
        # h11 has read the chunks, and ignored a length that was given as well.
        dropped.add(b"content-length")
    kept = [(name, value) for name, value in headers if name not in dropped]
    return [*kept, (b"transfer-encoding", b"chunked")] if is_chunked(headers) else kept


def is_chunked(headers: Headers) -> bool:
    """Return whether the message has a body in chunks."""
    return any(name == b"transfer-encoding" for name, _ in headers)
