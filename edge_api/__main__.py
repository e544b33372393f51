"""`python -m edge_api`: the API under uvicorn. A missing or bad setting is one line on stderr and exit code 2."""

import os
import signal
import socket
import sys
from collections.abc import Callable

from starlette.applications import Starlette

from edge_api.app import end_streams
from edge_api.handler import build_app
from edge_api.settings import ServerSettings
from infra.asgi_server import StreamServer, serve, server_config
from infra.http_limits import RESERVED_DESCRIPTORS, HttpLimits, connection_limit
from infra.logging import log
from infra.process_state import exempt_startup_objects
from infra.settings import Env

SHUTDOWN_TIMEOUT_S = 5

_DESCRIPTORS_EACH = 2
"""A log stream may need a subscription of its own: one connection to the client and one to Redis."""
_RESERVED = RESERVED_DESCRIPTORS + 128
"""With those of the object store's client, which keeps up to 128 connections."""


def create_server(app: Starlette, settings: ServerSettings) -> StreamServer:
    """Return a server for the application. At shutdown, requests under way have SHUTDOWN_TIMEOUT_S to complete."""
    limits = HttpLimits(
        connection_limit(settings.max_connections, descriptors_each=_DESCRIPTORS_EACH, reserved=_RESERVED)
    )
    config = server_config(app, settings.host, settings.port, limits, timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S)
    return StreamServer(config, app, end_streams, limits)


def main() -> int:
    """Serve until SIGTERM or SIGINT; return the exit code."""
    return serve(_prepare)


def _prepare() -> tuple[ServerSettings, Callable[[socket.socket], StreamServer]]:
    settings = ServerSettings.from_env(Env(os.environ))
    app = build_app(os.environ, starts_cold=False)

    def create(listener: socket.socket) -> StreamServer:
        host, port = listener.getsockname()[:2]
        log("edge.listening", host=host, port=port)
        server = create_server(app, settings)
        for number in (signal.SIGTERM, signal.SIGINT):
            # uvicorn restores these handlers and raises the signal again after an orderly shutdown. The default handler
            # would turn that into a failure; this one exits with 0.
            signal.signal(number, _exit_normally)
        exempt_startup_objects()
        return server

    return settings, create


def _exit_normally(_number: int, _frame: object) -> None:
    sys.exit(0)


if __name__ == "__main__":
    sys.exit(main())
