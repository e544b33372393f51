"""A TCP proxy that misbehaves on demand."""

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
TORN_BYTES = (800, 4000)
"""`TEAR` lets between so many bytes through: a few events with the head of their answer."""


class Mode(StrEnum):
    """What happens to bytes. What a connection has swallowed is gone: it is closed when the mode ends.

    PASS: forwarded. DELAY: forwarded later. CUT: all connections are closed, new ones too. STALL: half-open,
    connections are accepted and everything is swallowed. DEAF: requests arrive and are executed, their replies are
    swallowed. DUPLICATE: what a client says is said again, later, on a connection of its own whose replies are
    swallowed, so that every request is executed twice. RESET: all connections are reset, new ones are forwarded. TEAR:
    a connection is closed after some bytes of its answers, in the middle of whatever it is.
    """

    PASS = "pass"
    DELAY = "delay"
    CUT = "cut"
    STALL = "stall"
    DEAF = "deaf"
    DUPLICATE = "duplicate"
    RESET = "reset"
    TEAR = "tear"


class Echo:
    """A connection that says what it is told to, each piece when it is due, and does not care what is answered."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._tasks = [self._loop.create_task(self._listen(reader)), self._loop.create_task(self._speak())]

    @property
    def is_open(self) -> bool:
        """Whether the server still listens."""
        return not any(task.done() for task in self._tasks)

    def say(self, data: bytes, delay_s: float = 0.0) -> None:
        """Say it so much later."""
        self._pieces.put_nowait((self._loop.time() + delay_s, data))

    def abort(self) -> None:
        """Close it at once; what is not yet said will not be."""
        for task in self._tasks:
            task.cancel()
        self._writer.transport.abort()

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        with suppress(OSError):
            while await reader.read(CHUNK_BYTES):
                pass

    async def _speak(self) -> None:
        with suppress(OSError):
            while True:
                due, data = await self._pieces.get()
                await asyncio.sleep(due - self._loop.time())
                self._writer.write(data)
                await self._writer.drain()


class Connection:
    """One client, and its connection to the server unless there is none.

    `answered`: the last to speak was not the client, so what it says next is the beginning of a request. `left`: how
    many bytes of its answers come through before it is torn.
    """

    def __init__(self, writers: list[asyncio.StreamWriter]) -> None:
        self.writers = writers
        self.spoiled = False
        self.answered = True
        self.left = random.randint(*TORN_BYTES)
        self.echo: Echo | None = None

    def abort(self) -> None:
        """Close all ends at once."""
        self.silence()
        for writer in self.writers:
            writer.transport.abort()

    def reset(self) -> None:
        """Close all ends by a reset, as a host does that has forgotten the connection."""
        for writer in self.writers:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.abort()

    def silence(self) -> None:
        """Say nothing twice any more."""
        if self.echo:
            self.echo.abort()
            self.echo = None


class Proxy:
    """Forwards connections to `port` to the loopback port `target`; its modes may be set from any thread.

    `greeting` is what a connection to the server must say first. `repeated` counts what was said twice, `torn` the
    connections that were torn.
    """

    def __init__(self, host: "ProxyHost", target: int, greeting: bytes) -> None:
        self.port = 0
        self.repeated = 0
        self.torn = 0
        self._host = host
        self._target = target
        self._greeting = greeting
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
            asyncio.create_task(self._ask(connection, reader, server_writer)),
            asyncio.create_task(self._answer(connection, server_reader, writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _ask(self, connection: Connection, client: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
        async for data in self._passing(connection, client, {Mode.STALL}):
            if self._mode is Mode.DUPLICATE:
                await self._repeat(connection, data)
            connection.answered = False
            server.write(data)
            await server.drain()

    async def _answer(self, connection: Connection, server: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        async for data in self._passing(connection, server, {Mode.STALL, Mode.DEAF}):
            connection.answered = True
            if self._mode is Mode.TEAR:
                data = data[: connection.left]
                connection.left -= len(data)
            client.write(data)
            await client.drain()
            if not connection.left:
                self.torn += 1
                return

    async def _passing(
        self, connection: Connection, source: asyncio.StreamReader, swallow: set[Mode]
    ) -> AsyncIterator[bytes]:
        """What comes from the source and is to be forwarded now."""
        while data := await source.read(CHUNK_BYTES):
            if self._mode is Mode.DELAY:
                await asyncio.sleep(self._delay_s)
            connection.spoiled |= self._mode in swallow
            if not connection.spoiled:
                yield data

    async def _repeat(self, connection: Connection, data: bytes) -> None:
        """Say it twice. An echo begins with a whole request: the rest of one would mean something else."""
        if connection.echo is None or not connection.echo.is_open:
            if not connection.answered:
                return
            connection.silence()
            connection.echo = Echo(*await asyncio.open_connection(HOST, self._target))
            connection.echo.say(self._greeting)
        connection.echo.say(data, self._delay_s)
        self.repeated += 1

    async def _change(self, mode: Mode, delay_s: float) -> None:
        self._mode, self._delay_s = mode, delay_s
        for connection in list(self._connections):
            connection.silence()
            if mode is Mode.RESET:
                connection.reset()
            elif mode is Mode.CUT or connection.spoiled:
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

    def proxy(self, target: int, greeting: bytes = b"") -> Proxy:
        """A new proxy before a server on the loopback interface."""
        proxy = Proxy(self, target, greeting)
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
