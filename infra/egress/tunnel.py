"""Tunnel of a CONNECT request: bytes in both directions, not looked at."""

import asyncio
from collections.abc import Callable

from infra.egress.call import EgressCall
from infra.egress.idle import idle_deadline
from infra.egress.peer import CHUNK_BYTES, HttpPeer
from infra.egress.targets import EgressTarget


async def tunnel(client: HttpPeer, upstream: HttpPeer, call: EgressCall, target: EgressTarget, early: bytes) -> None:
    """Pass on bytes until both sides have ended. `early`: bytes of the client that came with the head of its request.

    Raises BytesUsedUp, TimeoutError, OSError.
    """
    async with idle_deadline(call.limits.idle_s) as idle:

        def sent(count: int) -> None:
            idle.touch()
            call.count(target, count, 0)

        def received(count: int) -> None:
            idle.touch()
            call.count(target, 0, count)

        def half_open() -> None:
            idle.idle_s = call.limits.half_open_s
            idle.touch()

        if early:
            sent(len(early))
            upstream.writer.write(early)
        copies = [
            asyncio.ensure_future(_copy(client.reader, upstream.writer, sent, half_open)),
            asyncio.ensure_future(_copy(upstream.reader, client.writer, received, half_open)),
        ]
        try:
            await asyncio.gather(*copies)
        finally:
            for copy in copies:
                copy.cancel()
            await asyncio.gather(*copies, return_exceptions=True)


async def _copy(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    count: Callable[[int], None],
    at_end: Callable[[], None],
) -> None:
    while data := await reader.read(CHUNK_BYTES):
        count(len(data))
        writer.write(data)
        await writer.drain()
    at_end()
    writer.write_eof()
