"""Server over a raw socket, whose answers are bytes of the test's choice."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeAlias

from tests.support.connections import closed_after

TOKEN = "token-that-nobody-may-see"
REPLY = b'{"result":"YQ=="}'
"""Reply `a` to a command."""


def answer(body: bytes = REPLY, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    """Return a complete answer with a Content-Length."""
    lines = [b"HTTP/1.1 " + status, b"Content-Type: application/json", b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def chunked(*chunks: bytes) -> bytes:
    """Return a complete answer in chunks."""
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body


class Connection:
    """One connection of a client. `request`: the latest request, head and body."""

    def __init__(self, server: "RawServer", reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server = server
        self.request = b""
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Send bytes. Raises ConnectionError once the client has left."""
        self._writer.write(data)
        await self._writer.drain()

    def end(self) -> None:
        """Close after what was sent."""
        self._writer.close()

    def reset(self) -> None:
        """Close with a reset instead of an end."""
        self._writer.transport.abort()

    async def left(self) -> None:
        """Return once the client has closed the connection."""
        with suppress(ConnectionError):
            await self._reader.read()

    async def serve(self) -> None:
        """Read requests, and answer each."""
        self.server.connections += 1
        try:
            with suppress(ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
                await self._serve()
                self._writer.close()
                await self._writer.wait_closed()
        finally:
            self.reset()

    async def _serve(self) -> None:
        while not self._writer.is_closing():
            head = await self._reader.readuntil(b"\r\n\r\n")
            fields = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:-2])
            self.request = head + await self._reader.readexactly(int(fields.get(b"content-length", b"0")))
            self.server.requests.append(self.request)
            if not await self.server.reply(self):
                return


Reply: TypeAlias = Callable[[Connection], Awaitable[bool | None]]


class RawServer:
    """Counts connections and keeps requests. `reply` answers a request and returns whether the connection stays."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.requests: list[bytes] = []
        self.connections = 0
        self.url = ""


@asynccontextmanager
async def raw_server(reply: Reply, tls: ssl.SSLContext | None = None) -> AsyncIterator[RawServer]:
    """Run a server on the loopback interface."""
    server = RawServer(reply)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Connection(server, reader, writer).serve()

    listening = await asyncio.start_server(closed_after(serve, tasks), "127.0.0.1", 0, ssl=tls)
    server.url = f"http{'s' if tls else ''}://localhost:{listening.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listening.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def always(data: bytes, *, stay: bool = True) -> Reply:
    """Return the same answer to every request."""

    async def reply(connection: Connection) -> bool:
        await connection.send(data)
        return stay

    return reply
