"""Accepting connections, at a pace, on a socket of any network namespace."""

import asyncio
import socket
from collections.abc import Awaitable, Callable

from infra.egress.peer import CHUNK_BYTES

SHORTAGE_PAUSE_S = 0.1

Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Acceptor:
    """Accepts connections and handles each in a task. `pause_s`: time between two; those beyond wait in the kernel."""

    def __init__(self, listener: socket.socket, handle: Handle, pause_s: float) -> None:
        self._listener = listener
        self._handle = handle
        self._pause_s = pause_s
        self._tasks: set[asyncio.Task[None]] = set()
        listener.setblocking(False)

    async def accept(self) -> None:
        """Accept connections until cancelled; those that are open stay open."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(self._listener)
            except OSError:  # too many open files, or a connection that was reset meanwhile
                await asyncio.sleep(SHORTAGE_PAUSE_S)
                continue
            task = asyncio.ensure_future(self._serve(connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            await asyncio.sleep(self._pause_s)

    async def drain(self) -> None:
        """Wait until all connections have ended."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def close(self) -> None:
        """Cut all connections."""
        for task in self._tasks:
            task.cancel()
        await self.drain()

    async def _serve(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=CHUNK_BYTES)
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            transport, _ = await loop.connect_accepted_socket(lambda: protocol, connection)
        except BaseException:
            connection.close()
            raise
        await self._handle(reader, asyncio.StreamWriter(transport, protocol, reader, loop))
