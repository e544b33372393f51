"""A TCP proxy that misbehaves on demand."""

import asyncio
import threading
from collections.abc import Coroutine
from enum import StrEnum
from types import TracebackType
from typing import Any

HOST = "127.0.0.1"
CHUNK_BYTES = 64 * 1024


class Mode(StrEnum):
    """What happens to bytes. What a connection has swallowed is gone: it is closed when the mode ends.

    PASS: forwarded. DELAY: forwarded later. CUT: all connections are closed, new ones too. STALL: half-open,
    connections are accepted and everything is swallowed. DEAF: requests arrive and are executed, their replies are
    swallowed.
    """

    PASS = "pass"
    DELAY = "delay"
    CUT = "cut"
    STALL = "stall"
    DEAF = "deaf"


class Connection:
    """One client, and its connection to the server unless there is none."""

    def __init__(self, writers: list[asyncio.StreamWriter]) -> None:
        self.writers = writers
        self.spoiled = False

    def abort(self) -> None:
        """Close both ends at once."""
        for writer in self.writers:
            writer.transport.abort()


class Proxy:
    """Forwards connections to `port` to the loopback port `target`; its modes may be set from any thread."""

    def __init__(self, host: "ProxyHost", target: int) -> None:
        self.port = 0
        self._host = host
        self._target = target
        self._mode = Mode.PASS
        self._delay_s = 0.0
        self._connections: set[Connection] = set()

    def behave(self, mode: Mode, *, delay_s: float = 0.0) -> None:
        """Behave like that from now on."""
        self._host.call(self._change(mode, delay_s))

    def abort(self) -> None:
        """Close all connections; in the proxies' thread."""
        for connection in list(self._connections):
            connection.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection until either end closes it."""
        connection = Connection([writer])
        self._connections.add(connection)
        try:
            if self._mode is Mode.STALL:
                connection.spoiled = True
                await reader.read()
            elif self._mode is not Mode.CUT:
                await self._forward(connection, reader, writer)
        except OSError:
            pass
        finally:
            self._connections.discard(connection)
            connection.abort()

    async def _forward(
        self, connection: Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        server_reader, server_writer = await asyncio.open_connection(HOST, self._target)
        connection.writers.append(server_writer)
        pumps = [
            asyncio.create_task(self._pump(connection, reader, server_writer, {Mode.STALL})),
            asyncio.create_task(self._pump(connection, server_reader, writer, {Mode.STALL, Mode.DEAF})),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(
        self, connection: Connection, source: asyncio.StreamReader, sink: asyncio.StreamWriter, swallow: set[Mode]
    ) -> None:
        while data := await source.read(CHUNK_BYTES):
            if self._mode is Mode.DELAY:
                await asyncio.sleep(self._delay_s)
            if connection.spoiled or self._mode in swallow:
                connection.spoiled = True
                continue
            sink.write(data)
            await sink.drain()

    async def _change(self, mode: Mode, delay_s: float) -> None:
        self._mode, self._delay_s = mode, delay_s
        for connection in list(self._connections):
            if mode is Mode.CUT or connection.spoiled:
                connection.abort()


class ProxyHost:
    """A thread in which proxies live, as long as the `with` block."""

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

    def proxy(self, target: int) -> Proxy:
        """A new proxy before a server on the loopback interface."""
        proxy = Proxy(self, target)
        self._proxies.append(proxy)
        self.call(self._listen(proxy))
        return proxy

    def call(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it in the proxies' thread."""
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
