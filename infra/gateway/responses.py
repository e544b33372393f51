"""Send the response to one request: small ones whole, large ones in parts while they are encoded."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass

from starlette.types import Send

from infra.gateway import encoding
from infra.gateway.errors import MethodNotAllowed, RequestTooLarge
from infra.gateway.memory import MemoryShare
from infra.gateway.pacing import Pacer

PART_BYTES = 64 * 1024
"""Bytes that are given to the server at a time. Nothing more is encoded until the client has read most of them."""

_Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class HttpResponse:
    """Response whose body is made while it is sent, if it has more than `PART_BYTES`."""

    body: Iterable[bytes]
    """Pieces, each of bounded work. If it is an iterator, the work is done as it advances."""
    status: int = 200
    media_type: bytes = b"application/json"

    async def send(self, send: Send, pacer: Pacer, share: MemoryShare) -> None:
        """Send the response. Raises RecursionError before anything was sent, or ClientDisconnect.

        Ends early, with an incomplete response, if the client reads nothing while memory is short.
        """
        parts = _parts(self.body, pacer)
        first = await anext(parts, b"")
        second = await anext(parts, None)
        headers = self._headers()
        if second is None:
            headers.append((b"content-length", str(len(first)).encode()))
            await send({"type": "http.response.start", "status": self.status, "headers": headers})
            await send({"type": "http.response.body", "body": first})
            return
        try:
            async with asyncio.timeout(None) as scope:
                share.read(scope)
                await send({"type": "http.response.start", "status": self.status, "headers": headers})
                for part in (first, second):
                    await _send_part(send, part, share, scope)
                async for part in parts:
                    await _send_part(send, part, share, scope)
                await send({"type": "http.response.body", "body": b""})
        except (TimeoutError, RecursionError):
            return  # the server closes the connection, so that the client sees that the response is incomplete

    def _headers(self) -> _Headers:
        headers = [(b"content-type", self.media_type), (b"upstash-sync-token", encoding.sync_token())]
        if self.status == MethodNotAllowed.status:
            headers.append((b"allow", b"HEAD, GET, POST, PUT"))
        if self.status == RequestTooLarge.status:
            # The rest of the body may be unread, so the connection cannot carry another request.
            headers.append((b"connection", b"close"))
        return headers


async def _send_part(send: Send, part: bytes, share: MemoryShare, scope: asyncio.Timeout) -> None:
    await send({"type": "http.response.body", "body": part, "more_body": True})
    share.read(scope)


async def _parts(pieces: Iterable[bytes], pacer: Pacer) -> AsyncIterator[bytes]:
    """Yield a body in parts of at most `PART_BYTES`. Pauses between the pieces. Raises ClientDisconnect."""
    waiting: list[bytes] = []
    size = 0
    for piece in itertools.chain.from_iterable(map(slices, pieces)):
        if size + len(piece) > PART_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
        waiting.append(piece)
        size += len(piece)
        if pacer.due:
            await pacer.pause()
    if waiting:
        yield b"".join(waiting)


def slices(piece: bytes) -> Iterator[bytes]:
    """Yield a piece in parts of at most `PART_BYTES`."""
    if len(piece) <= PART_BYTES:
        yield piece
        return
    for start in range(0, len(piece), PART_BYTES):
        yield piece[start : start + PART_BYTES]
