"""Server-sent events: framing, and one client's stream from its first byte to its last."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from typing import Any

from starlette.types import Receive, Send

from infra.gateway.encoding import sync_token
from infra.gateway.mailbox import Ending, Mailbox

HEARTBEAT = b": ping\n\n"

# How long a stream that has ended may take to hand over what is still waiting.
_LINGER_S = 2.0

# The three line ends of the event-stream format; anything else in a payload is safe inside a line.
_LINE_END = re.compile(r"\r\n|\n|\r")


def frame(text: str) -> bytes:
    """One event; a payload of several lines becomes several `data:` lines, which a client joins again with \\n."""
    return b"".join(b"data: " + line.encode() + b"\n" for line in _LINE_END.split(text)) + b"\n"


async def serve(
    mailbox: Mailbox, greeting: Iterable[bytes], heartbeat_s: float, receive: Receive, send: Send
) -> Ending | None:
    """Streams until the mailbox ends or the client leaves (None). Whatever the reason, nothing is left running."""
    headers = [
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"cache-control", b"no-cache, no-transform"),
        (b"x-accel-buffering", b"no"),
        (b"upstash-sync-token", sync_token()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"".join(greeting), "more_body": True})
    sender = asyncio.create_task(_send_all(mailbox, heartbeat_s, send))
    watcher = asyncio.create_task(disconnected(receive))
    try:
        ends: set[asyncio.Future[Any]] = {sender, watcher, mailbox.ending}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        ending = mailbox.ending.result() if mailbox.ending.done() else None
        if ending is Ending.ENDED and not watcher.done():
            await asyncio.wait({sender, watcher}, timeout=_LINGER_S, return_when=asyncio.FIRST_COMPLETED)
        return ending
    finally:
        for task in (sender, watcher):
            task.cancel()
        await asyncio.gather(sender, watcher, return_exceptions=True)


async def _send_all(mailbox: Mailbox, heartbeat_s: float, send: Send) -> None:
    while True:
        try:
            async with asyncio.timeout(heartbeat_s):
                frames = await mailbox.take()
        except TimeoutError:
            frames = HEARTBEAT
        await send({"type": "http.response.body", "body": frames or b"", "more_body": frames is not None})
        if frames is None:
            return


async def disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
