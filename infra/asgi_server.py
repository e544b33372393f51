"""uvicorn server of the API and the gateway, with the bounds of `infra.http_guard` on what clients may send and hold.

Separate from `infra.asgi`, because a Lambda function imports that module and must not load uvicorn.
"""

import asyncio
import socket
import sys
from collections.abc import Callable
from typing import Any, Protocol

import uvicorn
from starlette.applications import Starlette

from infra.http_connections import GuardState
from infra.http_guard import GuardedProtocol
from infra.http_limits import HttpLimits, raise_descriptor_limit
from infra.logging import configure
from infra.process_state import reset_inherited_state
from infra.settings import SettingsError

WRITE_TIMEOUT_MS = 60_000
"""The kernel closes a connection whose client has acknowledged none of the sent data for this time."""


_TICKS_PER_SWEEP = 5
"""uvicorn's loop ticks ten times a second."""
_GIVE_UP_S = 0.5
"""Time before the end of the graceful timeout at which requests under way are answered with 503."""


class StreamServer(uvicorn.Server):
    """Server of an application with event streams; stops on SIGTERM, SIGINT or `should_exit = True`.

    `config` is a result of `server_config`. `end_streams` ends the open event streams of `app` and rejects new ones.
    """

    def __init__(
        self, config: uvicorn.Config, app: Starlette, end_streams: Callable[[Starlette], None], limits: HttpLimits
    ) -> None:
        super().__init__(config)
        self.app = app
        self._end_streams = end_streams
        self.server_state: GuardState = GuardState(limits)

    async def on_tick(self, counter: int) -> bool:
        """Apply the deadlines of all connections twice a second; return True if the server has to stop."""
        if counter % _TICKS_PER_SWEEP == 0:
            self.server_state.sweep(asyncio.get_running_loop().time())
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, end the streams, then wait for the other requests until the graceful timeout."""
        # uvicorn waits for every request under way. An event stream would last as long as its run or its subscriber,
        # so that each shutdown would take the whole graceful timeout and then cut the streams.
        self._end_streams(self.app)
        # Before uvicorn cancels the requests that are left, whose clients would see an internal error.
        timeout_s = self.config.timeout_graceful_shutdown or _GIVE_UP_S
        timer = asyncio.get_running_loop().call_later(timeout_s - _GIVE_UP_S, self._give_up)
        try:
            await super().shutdown(sockets)
        finally:
            timer.cancel()
        # A client that reads nothing would otherwise keep its descriptor until the process ends.
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    def _give_up(self) -> None:
        for connection in list(self.server_state.guarded):
            connection.give_up()


def server_config(
    app: Starlette, host: str, port: int, limits: HttpLimits, *, timeout_graceful_shutdown: int, **options: Any
) -> uvicorn.Config:
    """Return the uvicorn settings that the API and the gateway share. `options` are further settings of uvicorn."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=GuardedProtocol,
        timeout_graceful_shutdown=timeout_graceful_shutdown,
        timeout_keep_alive=limits.keep_alive_s,
        access_log=False,  # paths and query strings hold tokens and data of users
        log_config=None,
        server_header=False,
        lifespan="on",
        ws="none",
        **options,
    )


def listen(host: str, port: int) -> socket.socket:
    """Return a bound TCP socket for the server to listen on. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio sets TCP_NODELAY only on sockets whose protocol is IPPROTO_TCP. Without
    # TCP_NODELAY each response waits 40 ms for a delayed acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # Without this option a restarted server cannot bind while connections of the previous one are in TIME_WAIT.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # A server cannot close a connection that still has data to send, so the kernel has to drop a client that
            # stops reading. Accepted connections inherit the option.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, WRITE_TIMEOUT_MS)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


class Address(Protocol):
    """Settings of a server, as far as `serve` needs them."""

    @property
    def host(self) -> str:
        """Host name or address to listen on."""
        ...

    @property
    def port(self) -> int:
        """Port; 0 takes a free one."""
        ...


def serve(prepare: Callable[[], tuple[Address, Callable[[socket.socket], StreamServer]]]) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code of the process: 2 for a bad setting, 1 for other failures.

    `prepare` reads the settings, and returns them with the function that creates the server for a bound socket. It may
    raise SettingsError. A failure is one line on standard error.
    """
    reset_inherited_state()
    try:
        address, create = prepare()
    except SettingsError as exc:
        sys.stderr.write(f"{exc}\n")
        return 2
    try:
        listener = listen(address.host, address.port)
    except OSError as exc:
        sys.stderr.write(f"cannot listen on {address.host}:{address.port}: {exc.strerror}\n")
        return 1
    configure()
    raise_descriptor_limit()
    server = create(listener)
    server.run(sockets=[listener])
    return 0 if server.started else 1
