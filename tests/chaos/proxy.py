"""TCP proxy that delays, drops, duplicates, truncates or closes on demand."""

import asyncio
import random
import socket
import struct
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from enum import StrEnum
from types import TracebackType
from typing import Any

HOST = "127.0.0.1"
CHUNK_BYTES = 64 * 1024
TRUNCATE_BYTES = (800, 4000)
"""Minimum and maximum number of reply bytes that TRUNCATE forwards: the HTTP head and a few events."""


class Mode(StrEnum):
    """Treatment of connections and their bytes.

    PASS: forward all bytes. DELAY: forward them later. DISCONNECT: close all connections, new ones too. STALL: accept
    connections and drop all bytes, like a half-open connection. DROP_REPLIES: forward requests, which are executed, and
    drop their replies. DUPLICATE: also send each request later on a second connection whose replies are dropped, so
    that it is executed twice. RESET: reset all connections, and forward new ones. TRUNCATE: close a connection after
    some bytes of its replies, at any byte.

    A connection that has dropped bytes is closed when the mode ends, because its stream is incomplete.
    """

    PASS = "pass"
    DELAY = "delay"
    DISCONNECT = "disconnect"
    STALL = "stall"
    DROP_REPLIES = "drop replies"
    DUPLICATE = "duplicate"
    RESET = "reset"
    TRUNCATE = "truncate"


class DuplicateConnection:
    """Second connection to the server: sends each piece when it is due, and discards the replies."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._tasks = [self._loop.create_task(self._discard(reader)), self._loop.create_task(self._send_due())]

    @property
    def is_open(self) -> bool:
        """True until either end closes the connection."""
        return not any(task.done() for task in self._tasks)

    def send(self, data: bytes, delay_s: float = 0.0) -> None:
        """Send the bytes after `delay_s`, after the bytes of earlier calls."""
        self._pieces.put_nowait((self._loop.time() + delay_s, data))

    def abort(self) -> None:
        """Close the connection and discard unsent bytes."""
        for task in self._tasks:
            task.cancel()
        self._writer.transport.abort()

    async def _discard(self, reader: asyncio.StreamReader) -> None:
        with suppress(OSError):
            while await reader.read(CHUNK_BYTES):
                pass

    async def _send_due(self) -> None:
        with suppress(OSError):
            while True:
                due, data = await self._pieces.get()
                await asyncio.sleep(due - self._loop.time())
                self._writer.write(data)
                await self._writer.drain()


class ProxiedConnection:
    """Connection of one client, and the connection to the server if there is one.

    `has_dropped`: whether bytes were dropped. `replied`: whether the server sent last, so that the next bytes of the
    client start a request. `truncate_after`: number of reply bytes that TRUNCATE still forwards.
    """

    def __init__(self, writers: list[asyncio.StreamWriter]) -> None:
        self.writers = writers
        self.has_dropped = False
        self.replied = True
        self.truncate_after = random.randint(*TRUNCATE_BYTES)
        self.duplicate: DuplicateConnection | None = None

    def abort(self) -> None:
        """Close both ends without sending buffered bytes."""
        self.stop_duplicate()
        for writer in self.writers:
            writer.transport.abort()

    def reset(self) -> None:
        """Close both ends by a TCP reset, like a host that no longer knows the connection."""
        for writer in self.writers:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.abort()

    def stop_duplicate(self) -> None:
        """Close the second connection if there is one."""
        if self.duplicate:
            self.duplicate.abort()
            self.duplicate = None


class Proxy:
    """Forwards connections from `port` to the loopback port `target`. Its mode may be set from any thread.

    `greeting` holds the bytes that a connection to the server starts with. `duplicated` counts the pieces that were
    sent twice, `truncated` the connections that were closed within a reply.
    """

    def __init__(self, host: "ProxyHost", target: int, greeting: bytes) -> None:
        self.port = 0
        self.duplicated = 0
        self.truncated = 0
        self._host = host
        self._target = target
        self._greeting = greeting
        self._mode = Mode.PASS
        self._delay_s = 0.0
        self._connections: set[ProxiedConnection] = set()

    def behave(self, mode: Mode, *, delay_s: float = 0.0) -> None:
        """Set the mode. `delay_s` is the delay of DELAY, and of the second request of DUPLICATE."""
        self._host.call(self._change(mode, delay_s))

    def abort(self) -> None:
        """Close all connections. Must be called in the thread of the ProxyHost."""
        for connection in list(self._connections):
            connection.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection until either end closes it."""
        connection = ProxiedConnection([writer])
        self._connections.add(connection)
        try:
            if self._mode is Mode.STALL:
                connection.has_dropped = True
                await reader.read()
            elif self._mode is not Mode.DISCONNECT:
                await self._forward(connection, reader, writer)
        except OSError:
            pass
        finally:
            self._connections.discard(connection)
            connection.abort()

    async def _forward(
        self, connection: ProxiedConnection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        server_reader, server_writer = await asyncio.open_connection(HOST, self._target)
        connection.writers.append(server_writer)
        pumps = [
            asyncio.create_task(self._forward_requests(connection, reader, server_writer)),
            asyncio.create_task(self._forward_replies(connection, server_reader, writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _forward_requests(
        self, connection: ProxiedConnection, client: asyncio.StreamReader, server: asyncio.StreamWriter
    ) -> None:
        async for data in self._read_forwarded(connection, client, {Mode.STALL}):
            if self._mode is Mode.DUPLICATE:
                await self._duplicate(connection, data)
            connection.replied = False
            server.write(data)
            await server.drain()

    async def _forward_replies(
        self, connection: ProxiedConnection, server: asyncio.StreamReader, client: asyncio.StreamWriter
    ) -> None:
        async for data in self._read_forwarded(connection, server, {Mode.STALL, Mode.DROP_REPLIES}):
            connection.replied = True
            if self._mode is Mode.TRUNCATE:
                data = data[: connection.truncate_after]
                connection.truncate_after -= len(data)
            client.write(data)
            await client.drain()
            if not connection.truncate_after:
                self.truncated += 1
                return

    async def _read_forwarded(
        self, connection: ProxiedConnection, source: asyncio.StreamReader, dropping: set[Mode]
    ) -> AsyncIterator[bytes]:
        """Yield the bytes to forward, after the delay of DELAY. In the modes `dropping`, drop all bytes."""
        while data := await source.read(CHUNK_BYTES):
            if self._mode is Mode.DELAY:
                await asyncio.sleep(self._delay_s)
            connection.has_dropped |= self._mode in dropping
            if not connection.has_dropped:
                yield data

    async def _duplicate(self, connection: ProxiedConnection, data: bytes) -> None:
        """Send the bytes on the second connection too, which is opened at the start of a request."""
        if connection.duplicate is None or not connection.duplicate.is_open:
            # The rest of a request without its start would be another request.
            if not connection.replied:
                return
            connection.stop_duplicate()
            connection.duplicate = DuplicateConnection(*await asyncio.open_connection(HOST, self._target))
            connection.duplicate.send(self._greeting)
        connection.duplicate.send(data, self._delay_s)
        self.duplicated += 1

    async def _change(self, mode: Mode, delay_s: float) -> None:
        self._mode, self._delay_s = mode, delay_s
        for connection in list(self._connections):
            connection.stop_duplicate()
            if mode is Mode.RESET:
                connection.reset()
            elif mode is Mode.DISCONNECT or connection.has_dropped:
                connection.abort()


class ProxyHost:
    """Thread that serves proxies for the duration of a `with` block."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies", daemon=True)
        self._servers: list[asyncio.Server] = []
        self._proxies: list[Proxy] = []

    def __enter__(self) -> "ProxyHost":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def proxy(self, target: int, greeting: bytes = b"") -> Proxy:
        """Start a proxy in front of a server on the loopback interface."""
        proxy = Proxy(self, target, greeting)
        self._proxies.append(proxy)
        self.call(self._listen(proxy))
        return proxy

    def call(self, work: Coroutine[Any, Any, None]) -> None:
        """Run the coroutine in the proxies' thread; return when it is done."""
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _listen(self, proxy: Proxy) -> None:
        server = await asyncio.start_server(proxy.serve, HOST, 0)
        proxy.port = server.sockets[0].getsockname()[1]
        self._servers.append(server)

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        for proxy in self._proxies:
            proxy.abort()
        own = asyncio.current_task()
        await asyncio.gather(*(task for task in asyncio.all_tasks() if task is not own), return_exceptions=True)
