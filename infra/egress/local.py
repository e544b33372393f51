"""Network of programs in sandboxes of this host, whose own network namespace leads nowhere.

The launcher makes a socket that listens on loopback inside of the sandbox, and passes it to the worker: the socket
stays in the namespace of the sandbox, while the worker accepts its connections. So nothing runs inside that a program
could kill, no other program can reach the socket, and it is gone when the worker closes it.
"""

import asyncio
import socket
from collections.abc import Callable
from functools import partial

from infra.address_guard import AddressGuard
from infra.contract.execution import Command
from infra.egress.accepting import Acceptor
from infra.egress.call import EgressCall, EgressLimits
from infra.egress.connection import serve_connection
from infra.egress.settings import NetworkSettings

ACCEPT_PAUSE_S = 0.005
"""Time between two connections of a program: a program that connects all the time takes little of the worker's."""


class LocalEgress:
    """Network of the programs of a worker. `guard` replaces the resolver; each call has its own look-ups."""

    def __init__(self, settings: NetworkSettings, guard: Callable[[], AddressGuard] | None = None) -> None:
        self._limits = EgressLimits(settings.max_bytes)
        self._guard = guard or (lambda: AddressGuard(settings.private_hosts))

    def open(self, command: Command) -> "ProgramProxy":
        """Return the proxy of a program that is about to be started. Raises OSError."""
        call = EgressCall(command.run_id, command.call, command.network, self._guard(), self._limits)
        return ProgramProxy(call, *socket.socketpair())


class ProgramProxy:
    """Proxy of one program. The launcher inherits the socket `theirs`, and passes the listening one through it."""

    def __init__(self, call: EgressCall, ours: socket.socket, theirs: socket.socket) -> None:
        self.call = call
        self.theirs = theirs
        self._ours = ours
        self._task: asyncio.Task[None] | None = None

    def serve(self) -> None:
        """Begin to serve the program; to be called once the launcher has inherited its socket."""
        self.theirs.close()
        self._task = asyncio.ensure_future(self._serve())

    async def close(self) -> None:
        """Cut all connections, close all sockets, and log what the program did."""
        if self._task:
            self._task.cancel()
            await asyncio.wait({self._task})
        self.discard()
        self.call.log_use()

    def discard(self) -> None:
        """Close the sockets of a program that could not be started."""
        self._ours.close()
        self.theirs.close()

    async def _serve(self) -> None:
        listener = await _received(self._ours)
        if listener is None:
            return
        with listener:
            acceptor = Acceptor(listener, partial(_serve, self.call), ACCEPT_PAUSE_S)
            try:
                await acceptor.accept()
            finally:
                await acceptor.close()


async def _serve(call: EgressCall, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await serve_connection(reader, writer, lambda _: call, call.limits.head_s)


async def _received(channel: socket.socket) -> socket.socket | None:
    """Return the socket that the launcher passes; None if the sandbox has ended before."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    channel.setblocking(False)
    loop.add_reader(channel.fileno(), readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(channel.fileno())
    _, fds, _, _ = socket.recv_fds(channel, 1, 1)
    return socket.socket(fileno=fds[0]) if fds else None
