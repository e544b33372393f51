"""Addresses of pods: each has its own on loopback, where its ports lead to those that the kernel chose."""

import asyncio
import itertools
import os
import socket
from contextlib import suppress

from tests.support.connections import closed_after

CHUNK_BYTES = 64 * 1024
_TAKEN = itertools.count()


class PodNetwork:
    """Address of one pod. While `silent` it accepts connections and answers nothing, as if its node were lost.

    `cut_after`: bytes after which the next connection that sends them is cut, in the middle of its answer.
    """

    def __init__(self) -> None:
        number = next(_TAKEN)
        # Processes of tests that run at the same time must not take the same address.
        self.address = f"127.{1 + os.getpid() % 250}.{(os.getpid() // 250 + number // 250) % 250}.{1 + number % 250}"
        self.silent = False
        self.cut_after: int | None = None
        self._is_closed = False
        self._listening: list[socket.socket] = []
        self._connections: set[asyncio.Task[None]] = set()

    async def open(self, port: int, target: int) -> None:
        """Lead a port of the pod to a port of the host."""

        async def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            # The connection may have been accepted before the network was closed.
            if not self._is_closed:
                await self._lead(reader, writer, target)

        accept = closed_after(lead, self._connections)
        listening = socket.create_server((self.address, port))
        self._listening.append(listening)
        await asyncio.start_server(accept, sock=listening, limit=CHUNK_BYTES)

    def cut(self) -> None:
        """End all connections."""
        for task in self._connections:
            task.cancel()

    def close(self) -> None:
        """End all connections, and refuse new ones."""
        self._is_closed = True
        # A closed `asyncio.Server` would leave a connection open that it is accepting at the moment.
        for listening in self._listening:
            asyncio.get_running_loop().remove_reader(listening)
            listening.close()
        self._listening.clear()
        self.cut()

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: int) -> None:
        with suppress(OSError, asyncio.CancelledError):
            await self._while_silent()
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", target)
            try:
                there = asyncio.ensure_future(self._copy(reader, inner_writer))
                back = asyncio.ensure_future(self._answer(inner_reader, writer))
                try:
                    await back
                finally:
                    there.cancel()
                    back.cancel()
            finally:
                inner_writer.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                await self._while_silent()
                if writer.is_closing():
                    return
                writer.write(data)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Copy the answer; the connection may be cut in the middle of it."""
        sent = 0
        with suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                await self._while_silent()
                writer.write(data)
                await writer.drain()
                sent += len(data)
                if self.cut_after is not None and sent >= self.cut_after:
                    self.cut_after = None
                    writer.transport.abort()
                    return
            writer.write_eof()

    async def _while_silent(self) -> None:
        while self.silent:
            await asyncio.sleep(0.05)
