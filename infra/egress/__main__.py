"""Entry point of the proxy of a cluster, run as `swissbrain-egress`.

Exit code 2 and one line on stderr when a setting is missing or bad.
"""

import asyncio
import os
import signal
import socket
import sys

import uvloop

from infra.egress.server import EgressServer
from infra.egress.settings import EgressSettings
from infra.http_limits import connection_limit, raise_descriptor_limit
from infra.logging import configure, log
from infra.process_state import exempt_startup_objects, reset_inherited_state
from infra.settings import Env, SettingsError

PROGRAM = "swissbrain-egress"
BACKLOG = 1024
MAX_CONNECTIONS = 2000
"""Connections of all programs together. One may hold 300 KB of data on its way."""


async def work(settings: EgressSettings, listener: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    raise_descriptor_limit()
    # Each connection of a program needs one to its target.
    server = EgressServer(settings, connection_limit(MAX_CONNECTIONS, descriptors_each=2))
    log("egress.started", host=settings.host, port=listener.getsockname()[1])
    exempt_startup_objects()
    await server.serve(listener, stopped)
    log("egress.stopped")


def main() -> int:
    """Serve until SIGTERM; return the exit code."""
    reset_inherited_state()
    try:
        settings = EgressSettings.from_env(Env(os.environ))
    except SettingsError as exc:
        print(f"{PROGRAM}: {exc}", file=sys.stderr)  # noqa: T201
        return 2
    configure()
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except OSError as exc:
        print(f"{PROGRAM}: cannot listen on {settings.host}:{settings.port}: {exc.strerror}", file=sys.stderr)  # noqa: T201
        return 1
    with listener:
        uvloop.run(work(settings, listener))
    return 0


if __name__ == "__main__":
    sys.exit(main())
