"""HTTP/1.1 client of the benchmarks: keep-alive connections, parsed by httptools.

A benchmark runs on the machine that it measures, so its load must cost little beside the servers. The tables show its
share of the processor time (`bench.processor_time`).
"""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any, cast
from urllib.parse import urlsplit

import httptools

TIMEOUT_S = 60.0
"""Longest wait for an answer. A stream has no such limit once its head has arrived."""
HELD_BYTES = 1024 * 1024
"""Bytes of a stream that are held for a reader before the connection is no longer read."""
ERROR_CHARS = 300


class RequestFailed(RuntimeError):
    """A server answered with a status of 400 or more, or broke off the connection."""


class Generator:
    """Client of one server. Opens a connection for each concurrent request, and uses it again afterwards."""

    def __init__(self, url: str, token: str = "") -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname or not parts.port:
            raise ValueError(f"a benchmark measures http://HOST:PORT, not {url!r}")
        self._host, self._port = parts.hostname, parts.port
        authorization = f"Authorization: Bearer {token}\r\n" if token else ""
        self._head = f"Host: {parts.netloc}\r\n{authorization}".encode()
        self._idle: list[_Connection] = []

    async def get(self, path: str) -> Any:
        """Return the JSON of the answer. Raises RequestFailed."""
        return json.loads(await self.request("GET", path))

    async def post(self, path: str, content: object = None) -> Any:
        """Send JSON, or no body for None; return the JSON of the answer. Raises RequestFailed."""
        return json.loads(await self.request("POST", path, b"" if content is None else json.dumps(content).encode()))

    async def request(self, method: str, path: str, body: bytes = b"") -> bytes:
        """Return the body of the answer. Raises RequestFailed."""
        async with asyncio.timeout(TIMEOUT_S):
            connection = await self._connection()
            try:
                await connection.send(self._encoded(method, path, body))
                await connection.ended
            except BaseException:
                connection.close()
                raise
        answer = connection.take()
        self._release(connection)
        _check(method, path, connection.status, answer)
        return answer

    async def lines(self, path: str) -> AsyncGenerator[bytes, None]:
        """Yield the lines of a streamed answer as they arrive, without their ends. Raises RequestFailed."""
        connection = await self._connection()
        connection.streams = True
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await connection.send(self._encoded("GET", path, b""))
            if connection.status >= 400:
                await connection.ended
                _check("GET", path, connection.status, connection.take())
            rest = b""
            while not connection.ended.done() or connection.holds:
                await connection.more()
                *complete, rest = (rest + connection.take()).split(b"\n")
                for line in complete:
                    yield line
            await connection.ended
        finally:
            self._release(connection)

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().close()

    def _release(self, connection: "_Connection") -> None:
        """Keep the connection for another request if its answer is complete; otherwise close it."""
        if connection.reusable:
            connection.reset()
            self._idle.append(connection)
        else:
            connection.close()

    async def _connection(self) -> "_Connection":
        while self._idle:
            if (connection := self._idle.pop()).reusable:
                return connection
        _, connection = await asyncio.get_running_loop().create_connection(_Connection, self._host, self._port)
        return connection

    def _encoded(self, method: str, path: str, body: bytes) -> bytes:
        start = f"{method} {path} HTTP/1.1\r\n".encode() + self._head
        if method == "GET":
            return start + b"\r\n"
        kind = b"Content-Type: application/json\r\n" if body else b""
        return start + kind + b"Content-Length: %d\r\n\r\n" % len(body) + body


def _check(method: str, path: str, status: int, answer: bytes) -> None:
    if status >= 400:
        text = answer.decode(errors="replace")[:ERROR_CHARS]
        raise RequestFailed(f"{method} {path} was answered with {status}: {text}")


class _Connection(asyncio.Protocol):
    """One connection, with one request at a time."""

    def __init__(self) -> None:
        self.status = 0
        self.streams = False
        """True if `take` is called while the answer arrives."""
        self.reusable = False
        """True between the end of an answer and the next request, if the server keeps the connection open."""
        self.holds = 0
        """Bytes of the answer that `take` has not returned yet."""
        self._chunks: list[bytes] = []
        self._arrived = asyncio.Event()
        self._parser = httptools.HttpResponseParser(self)
        loop = asyncio.get_running_loop()
        self._started: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        """Done at the end of the answer; has the exception RequestFailed if the connection ended before it."""

    async def send(self, request: bytes) -> None:
        """Send a request; return when the head of its answer has arrived."""
        loop = asyncio.get_running_loop()
        self._started, self.ended, self.reusable = loop.create_future(), loop.create_future(), False
        self._transport.write(request)
        await self._started

    async def more(self) -> None:
        """Wait until there is something to take, or the answer has ended."""
        await self._arrived.wait()

    def take(self) -> bytes:
        """Return what has arrived of the body since the last call."""
        taken = b"".join(self._chunks)
        self._chunks.clear()
        self.holds = 0
        if not self.ended.done():
            self._arrived.clear()
            self._transport.resume_reading()
        return taken

    def reset(self) -> None:
        """Drop what nobody has taken of the last answer, and read again, which its last part may have stopped."""
        self.take()
        self._transport.resume_reading()
        self._arrived.clear()
        self.streams = False

    def close(self) -> None:
        """Close the connection."""
        self.reusable = False
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as exc:
            self._end(RequestFailed(f"the answer is not HTTP: {exc}"))
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.reusable = False
        self._end(RequestFailed(f"the connection ended before the answer: {exc or 'closed by the server'}"))

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if not self._started.done():
            self._started.set_result(None)

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)
        self.holds += len(body)
        self._arrived.set()
        if self.streams and self.holds > HELD_BYTES:
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        self.reusable = self._parser.should_keep_alive()
        self._end(None)

    def _end(self, error: RequestFailed | None) -> None:
        self._arrived.set()
        for future in (self._started, self.ended):
            if future.done():
                continue
            if error:
                future.set_exception(error)
                future.exception()  # marks it as retrieved: only one of the two futures is awaited
            else:
                future.set_result(None)
