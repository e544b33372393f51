"""Proxy of a cluster: a TCP port for the pods of all calls, each with its token."""

import asyncio
import socket
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from infra.address_guard import AddressGuard
from infra.egress.accepting import Acceptor
from infra.egress.call import EgressLimits
from infra.egress.connection import serve_connection
from infra.egress.sessions import EgressSessions
from infra.egress.settings import EgressSettings
from infra.egress.tokens import EgressTokens

CONNECTIONS_PER_PEER = 96
"""More than a call may have. Bounds pods that connect and send no token."""
SWEEP_S = 10.0
DRAIN_S = 20.0
"""Time for which open connections may go on after SIGTERM."""


class EgressServer:
    """Server of the proxy. `connections` is the limit for all pods together; `guard` replaces the resolver."""

    def __init__(
        self, settings: EgressSettings, connections: int, guard: Callable[[], AddressGuard] | None = None
    ) -> None:
        self._limits = EgressLimits(settings.max_bytes)
        made = guard or (lambda: AddressGuard(settings.private_hosts))
        self.sessions = EgressSessions(EgressTokens(settings.token_key), self._limits, made)
        self._connections = connections
        self._peers: Counter[str] = Counter()

    async def serve(self, listener: socket.socket, stopped: asyncio.Event) -> None:
        """Serve until `stopped`, then let connections end for DRAIN_S, and cut the others."""
        acceptor = Acceptor(listener, self._handle, 0)
        tasks = [asyncio.ensure_future(acceptor.accept()), asyncio.ensure_future(self._sweep())]
        try:
            await stopped.wait()
            tasks[0].cancel()
            with suppress(TimeoutError):
                async with asyncio.timeout(DRAIN_S):
                    await acceptor.drain()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await acceptor.close()
            await self.sessions.close()

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = str((writer.get_extra_info("peername") or ("",))[0])
        if self._peers.total() >= self._connections or self._peers[peer] >= CONNECTIONS_PER_PEER:
            writer.transport.abort()
            return
        self._peers[peer] += 1
        try:
            await serve_connection(reader, writer, self.sessions.authorise, self._limits.head_s)
        finally:
            self._peers[peer] -= 1
            if not self._peers[peer]:
                del self._peers[peer]

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            await self.sessions.sweep()
