"""Connection of a program to the proxy: its requests, one after the other."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import TypeAlias

import h11

from infra.egress.call import BytesUsedUp, EgressCall, EgressRefused
from infra.egress.dial import dial
from infra.egress.forward import BrokenAnswer, forward
from infra.egress.peer import CHUNK_BYTES, HttpPeer, is_chunked
from infra.egress.targets import BadTarget, connect_target, plain_target
from infra.egress.tunnel import tunnel
from infra.logging import log

Authorise: TypeAlias = Callable[[h11.Request], EgressCall]
"""Returns the call to which a request belongs. Raises EgressRefused."""

LINGER_S = 2.0
LINGER_BYTES = 1024 * 1024
"""Bounds for reading what a client sends after a refusal: to close earlier would reset the connection, and the client
might not see the answer."""
_AUTHENTICATE = (b"proxy-authenticate", b'Basic realm="swissbrain-egress"')


async def serve_connection(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, authorise: Authorise, head_s: float
) -> None:
    """Answer all requests of a connection, then close it. Never raises an error of the connection."""
    connection = ProgramConnection(HttpPeer(h11.SERVER, reader, writer), authorise, head_s)
    try:
        with ExitStack() as counted:
            while await connection.exchange(counted):
                pass
    except (OSError, TimeoutError, h11.ProtocolError, BytesUsedUp, BrokenAnswer):
        connection.peer.abort()
    except Exception as exc:  # noqa: BLE001
        log("egress.broken", level=logging.ERROR, error=exc)
        connection.peer.abort()
    except asyncio.CancelledError:
        connection.peer.abort()
        raise
    finally:
        with suppress(OSError):
            writer.close()


class ProgramConnection:
    """Connection of a program."""

    def __init__(self, peer: HttpPeer, authorise: Authorise, head_s: float) -> None:
        self.peer = peer
        self._authorise = authorise
        self._head_s = head_s
        self._call: EgressCall | None = None

    async def exchange(self, counted: ExitStack) -> bool:
        """Answer one request; return whether another one may follow. `counted` holds the count of the connection."""
        try:
            request = await self._request()
            if request is None:
                return False
            if request.target == b"/health" and request.method == b"GET":
                await self._answer(200, "OK", "ok")
                return False
            call = self._authorise(request)
            if self._call is None:
                counted.enter_context(call.connection())
                self._call = call
            elif self._call is not call:
                raise EgressRefused(400, "Bad Request", "a connection belongs to one call")
            await call.pace()
            if request.method == b"CONNECT":
                await self._tunnel(request, call)
                return False
            await self._forward(request, call)
        except EgressRefused as refused:
            await self._answer(refused.status, refused.phrase, str(refused))
            return False
        http = self.peer.http
        if http.our_state is not h11.DONE or http.their_state is not h11.DONE:
            await self._linger()
            return False
        http.start_next_cycle()
        return True

    async def _request(self) -> h11.Request | None:
        """Read the head of a request. Raises EgressRefused if it is ambiguous."""
        try:
            async with asyncio.timeout(self._head_s):
                event = await self.peer.next_event()
        except h11.RemoteProtocolError as exc:
            raise EgressRefused(exc.error_status_hint, "Bad Request", f"the request is not valid: {exc}") from None
        except TimeoutError:
            if self.peer.http.their_state is h11.IDLE and not self.peer.http.trailing_data[0]:
                return None
            message = f"no whole head came within {self._head_s:g} s"
            raise EgressRefused(408, "Request Timeout", message) from None
        if not isinstance(event, h11.Request):
            return None
        if event.http_version not in (b"1.0", b"1.1"):
            raise EgressRefused(505, "HTTP Version Not Supported", "the proxy speaks HTTP/1.0 and HTTP/1.1")
        names = [name for name, _ in event.headers]
        if is_chunked(event.headers) and b"content-length" in names:
            raise EgressRefused(400, "Bad Request", "the request has both Content-Length and Transfer-Encoding")
        return event

    async def _tunnel(self, request: h11.Request, call: EgressCall) -> None:
        names = {name for name, _ in request.headers}
        if names & {b"content-length", b"transfer-encoding"}:
            raise EgressRefused(400, "Bad Request", "a CONNECT request has no body")
        try:
            target = connect_target(request.target)
        except BadTarget as exc:
            raise EgressRefused(400, "Bad Request", str(exc)) from None
        upstream = HttpPeer(h11.CLIENT, *await dial(call, target))
        try:
            while not isinstance(await self.peer.next_event(), h11.EndOfMessage):
                pass
            await self.peer.send(h11.Response(status_code=200, reason=b"Connection established", headers=[]))
            early, _ = self.peer.http.trailing_data
            await tunnel(self.peer, upstream, call, target, early)
        finally:
            upstream.abort()

    async def _forward(self, request: h11.Request, call: EgressCall) -> None:
        try:
            target = plain_target(request.target)
        except BadTarget as exc:
            raise EgressRefused(400, "Bad Request", str(exc)) from None
        await forward(self.peer, await dial(call, target), request, call, target)

    async def _answer(self, status: int, phrase: str, message: str) -> None:
        """Send an answer of the proxy itself, the last one of the connection."""
        body = f"{message}\n".encode()
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
            *([_AUTHENTICATE] if status == 407 else []),
        ]
        await self.peer.send(h11.Response(status_code=status, reason=phrase.encode(), headers=headers))
        await self.peer.send(h11.Data(data=body))
        await self.peer.send(h11.EndOfMessage())
        await self._linger()

    async def _linger(self) -> None:
        """End the connection, and read what the client still sends."""
        left = LINGER_BYTES
        with suppress(TimeoutError, OSError):
            async with asyncio.timeout(LINGER_S):
                self.peer.writer.write_eof()
                while left > 0 and (data := await self.peer.reader.read(CHUNK_BYTES)):
                    left -= len(data)
