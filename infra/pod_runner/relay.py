"""Relay on loopback between a program and the egress proxy: it adds the token of the call, which the program lacks.

Browsers take no password for a proxy from its URL. A connection carries one request: the proxy is asked to close it
after the answer, so that everything after the first head can be passed on unread.
"""

import asyncio
import base64
from collections.abc import Iterable
from contextlib import suppress
from urllib.parse import unquote, urlsplit

from infra.pod_runner.connections import LimitedServer

HOST = "127.0.0.1"
MAX_HEAD_BYTES = 64 * 1024
HEAD_S = 30.0
"""Time for the head of a request. Browsers open connections before they need them, and open another one then."""
CONNECT_S = 10.0
CHUNK_BYTES = 64 * 1024
_OWN = (b"connection", b"proxy-connection", b"keep-alive", b"proxy-authorization")
_UNREACHABLE = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class ProxyRelay(LimitedServer):
    """Relay to the proxy at `url`, which holds user and token."""

    def __init__(self, url: str) -> None:
        super().__init__()
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        credentials = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}".encode()
        self._authorization = b"Proxy-Authorization: Basic " + base64.b64encode(credentials)
        self._server: asyncio.Server | None = None

    async def listen(self) -> str:
        """Listen on a free port; return the URL for the program. Raises OSError."""
        self._server = await asyncio.start_server(self._serve, HOST, 0, limit=MAX_HEAD_BYTES)
        return f"http://{HOST}:{self._server.sockets[0].getsockname()[1]}"

    def close(self) -> None:
        """Stop listening, and cut all connections."""
        if self._server:
            self._server.close()
        for task in self._connections:
            task.cancel()

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A program or a proxy that goes away, or sends something else than HTTP, ends the connection.
        with suppress(OSError, EOFError, TimeoutError, asyncio.LimitOverrunError, asyncio.CancelledError):
            await self._pass_on(reader, writer)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(HEAD_S):
            head = await reader.readuntil(b"\r\n\r\n")
        try:
            async with asyncio.timeout(CONNECT_S):
                answers, requests = await asyncio.open_connection(self._host, self._port, limit=CHUNK_BYTES)
        except OSError:
            writer.write(_UNREACHABLE)
            return
        try:
            requests.write(b"\r\n".join(self._with_token(head)))
            sending = asyncio.ensure_future(_copy(reader, requests))
            try:
                await _copy(answers, writer)
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
        finally:
            requests.transport.abort()

    def _with_token(self, head: bytes) -> Iterable[bytes]:
        first, *fields = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
        kept = [field for field in fields if field.partition(b":")[0].strip().lower() not in _OWN]
        # A tunnel is closed by either side, and an answer that says otherwise might confuse a browser.
        closing = [] if first.startswith(b"CONNECT ") else [b"Connection: close"]
        return [first, self._authorization, *closing, *kept, b"", b""]


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK_BYTES):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
