"""`python -m edge_api`: the API under uvicorn. A missing or bad setting is one line on stderr and exit code 2."""

import os
import signal
import socket
import sys

import uvicorn
from starlette.applications import Starlette

from edge_api.app import end_streams
from edge_api.handler import build_app
from edge_api.settings import ServerSettings
from infra.logging import configure, log
from infra.settings import Env, SettingsError

SHUTDOWN_S = 5
STALL_MS = 60_000


class Server(uvicorn.Server):
    """Ends the log streams before it waits for the requests under way, which would last as long as their runs."""

    def __init__(self, config: uvicorn.Config, app: Starlette) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, end the streams, answer what is under way within SHUTDOWN_S."""
        end_streams(self._app)
        await super().shutdown(sockets)


def create_server(app: Starlette, settings: ServerSettings) -> Server:
    """A server without an access log: query strings and paths are the users' business."""
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        access_log=False,
        log_config=None,
        server_header=False,
        lifespan="on",
        ws="none",
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
    return Server(config, app)


def listen(settings: ServerSettings) -> socket.socket:
    """The listening socket. Raises OSError.

    A client that stops reading is cut off by the kernel: a server cannot close a connection that still has data to
    send, and the option is inherited by what is accepted. The protocol is named because asyncio sets TCP_NODELAY
    only where it is; without, each answer waits 40 ms for a delayed acknowledgement.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALL_MS)
        listener.bind((settings.host, settings.port))
    except OSError:
        listener.close()
        raise
    return listener


def main() -> int:
    """Serve until SIGTERM or SIGINT."""
    try:
        settings = ServerSettings.from_env(Env(os.environ))
        app = build_app(os.environ)
    except SettingsError as exc:
        sys.stderr.write(f"{exc}\n")
        return 2
    try:
        listener = listen(settings)
    except OSError as exc:
        sys.stderr.write(f"cannot listen on {settings.host}:{settings.port}: {exc.strerror}\n")
        return 1
    configure()
    host, port = listener.getsockname()[:2]
    log("edge.listening", host=host, port=port)
    server = create_server(app, settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        # The server raises the signal again once it has shut down in order; that is no failure.
        signal.signal(number, _leave)
    server.run(sockets=[listener])
    return 0 if server.started else 1


def _leave(_number: int, _frame: object) -> None:
    sys.exit(0)


if __name__ == "__main__":
    sys.exit(main())
