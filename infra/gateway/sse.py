"""Server-sent events: framing, and the response that streams one client's buffer."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from typing import Any

from starlette.types import Receive, Send

from infra.asgi import wait_for_disconnect
from infra.gateway.encoding import sync_token
from infra.gateway.responses import slices
from infra.gateway.stream_buffer import CloseReason, StreamBuffer

HEARTBEAT = b": ping\n\n"

# Time for a stream whose source has ended to deliver the buffered frames.
_DRAIN_TIMEOUT_S = 2.0

# The three line ends of the event-stream format; anything else in a payload is safe inside a line.
_LINE_END = re.compile(r"\r\n|\n|\r")


def frame(text: str) -> bytes:
    """Encode one event. Each line of the text becomes a `data:` line; a client joins them again with \\n."""
    return b"".join(b"data: " + line.encode() + b"\n" for line in _LINE_END.split(text)) + b"\n"


async def serve(
    buffer: StreamBuffer, greeting: Iterable[bytes], heartbeat_s: float, receive: Receive, send: Send
) -> CloseReason | None:
    """Stream until the buffer is closed or the client leaves; return the reason, None if the client left.

    No task is left running, whatever ends the stream.
    """
    headers = [
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"cache-control", b"no-cache, no-transform"),
        (b"x-accel-buffering", b"no"),
        (b"upstash-sync-token", sync_token()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"".join(greeting), "more_body": True})
    sender = asyncio.create_task(_send_all(buffer, heartbeat_s, send))
    disconnect = asyncio.create_task(wait_for_disconnect(receive))
    try:
        # The buffer's future is awaited as well as the sender, because the sender of an overflowed buffer hangs in a
        # send to the slow client.
        first_of: set[asyncio.Future[Any]] = {sender, disconnect, buffer.closed}
        await asyncio.wait(first_of, return_when=asyncio.FIRST_COMPLETED)
        reason = buffer.closed.result() if buffer.closed.done() else None
        if reason is CloseReason.SOURCE_ENDED and not disconnect.done():
            await asyncio.wait({sender, disconnect}, timeout=_DRAIN_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        return reason
    finally:
        for task in (sender, disconnect):
            task.cancel()
        await asyncio.gather(sender, disconnect, return_exceptions=True)


async def _send_all(buffer: StreamBuffer, heartbeat_s: float, send: Send) -> None:
    while True:
        try:
            async with asyncio.timeout(heartbeat_s):
                frames = await buffer.take()
        except TimeoutError:
            frames = HEARTBEAT
        if frames is None:
            await send({"type": "http.response.body", "body": b""})
            return
        for part in slices(frames):  # the server copies what it is given, until the client has read it
            await send({"type": "http.response.body", "body": part, "more_body": True})
            buffer.read()
