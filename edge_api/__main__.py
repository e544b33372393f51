"""`python -m edge_api`: the API under uvicorn. A missing or bad setting is one line on stderr and exit code 2."""

import os
import signal
import sys

from starlette.applications import Starlette

from edge_api.app import end_streams
from edge_api.handler import build_app
from edge_api.settings import ServerSettings
from infra.asgi_server import StreamServer, listen, server_config
from infra.http_limits import HttpLimits, connection_limit, raise_descriptor_limit
from infra.logging import configure, log
from infra.process_state import exempt_startup_objects, reset_inherited_state
from infra.settings import Env, SettingsError

SHUTDOWN_TIMEOUT_S = 5

_DESCRIPTORS_EACH = 2
"""A log stream may need a subscription of its own: one connection to the client and one to Redis."""


def create_server(app: Starlette, settings: ServerSettings) -> StreamServer:
    """Return a server for the application. At shutdown, requests under way have SHUTDOWN_TIMEOUT_S to complete."""
    limits = HttpLimits(connection_limit(settings.max_connections, descriptors_each=_DESCRIPTORS_EACH))
    config = server_config(app, settings.host, settings.port, limits, timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S)
    return StreamServer(config, app, end_streams, limits)


def main() -> int:
    """Serve until SIGTERM or SIGINT; return the exit code."""
    reset_inherited_state()
    try:
        settings = ServerSettings.from_env(Env(os.environ))
        app = build_app(os.environ, starts_cold=False)
    except SettingsError as exc:
        sys.stderr.write(f"{exc}\n")
        return 2
    try:
        listener = listen(settings.host, settings.port)
    except OSError as exc:
        sys.stderr.write(f"cannot listen on {settings.host}:{settings.port}: {exc.strerror}\n")
        return 1
    configure()
    raise_descriptor_limit()
    host, port = listener.getsockname()[:2]
    log("edge.listening", host=host, port=port)
    server = create_server(app, settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn restores these handlers and raises the signal again after an orderly shutdown. The default handler
        # would turn that into a failure; this one exits with 0.
        signal.signal(number, _exit_normally)
    exempt_startup_objects()
    server.run(sockets=[listener])
    return 0 if server.started else 1


def _exit_normally(_number: int, _frame: object) -> None:
    sys.exit(0)


if __name__ == "__main__":
    sys.exit(main())
