"""Connections of a server in the pod: a limited number, each in its task."""

import asyncio
from abc import ABC, abstractmethod

MAX_CONNECTIONS = 64
"""Open at a time. It is also the number that the egress proxy lets one call have."""


class LimitedServer(ABC):
    """Server that closes connections beyond MAX_CONNECTIONS unread. `_connections` are the tasks of the others."""

    def __init__(self) -> None:
        self._connections: set[asyncio.Task[None]] = set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._connections) >= MAX_CONNECTIONS:
            writer.close()
            return
        self._connections.add(task)
        try:
            await self._handle(reader, writer)
        finally:
            self._connections.discard(task)
            if task.cancelling():
                writer.transport.abort()
            writer.close()

    @abstractmethod
    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection; its errors end with it."""
