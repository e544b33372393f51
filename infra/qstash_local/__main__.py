"""`swissbrain-qstash`, or `python -m infra.qstash_local`: exit code 2 and one line for a missing or bad setting."""

import os
import socket
import sys
from collections.abc import Callable

from starlette.applications import Starlette

from infra.asgi_server import StreamServer, serve, server_config
from infra.http_limits import HttpLimits, connection_limit
from infra.logging import log
from infra.process_state import exempt_startup_objects
from infra.qstash_local.app import DRAIN_S, create_qstash
from infra.qstash_local.settings import QStashLocalSettings
from infra.redis_tcp import RedisTcp
from infra.settings import Env


def main() -> int:
    """Serve until SIGTERM or SIGINT; return the exit code."""
    return serve(_prepare)


def _prepare() -> tuple[QStashLocalSettings, Callable[[socket.socket], StreamServer]]:
    settings = QStashLocalSettings.from_env(Env(os.environ))

    def create(listener: socket.socket) -> StreamServer:
        host, port = listener.getsockname()[:2]
        log("qstash.listening", host=host, port=port)
        redis = RedisTcp(settings.redis)
        app = create_qstash(redis, settings, close=redis.close)
        limits = HttpLimits(connection_limit(settings.max_connections, descriptors_each=2))
        config = server_config(app, settings.host, settings.port, limits, timeout_graceful_shutdown=int(DRAIN_S))
        server = StreamServer(config, app, _nothing_to_end, limits)
        exempt_startup_objects()
        return server

    return settings, create


def _nothing_to_end(_app: Starlette) -> None:
    """Do nothing: no answer of this server is a stream."""


if __name__ == "__main__":
    sys.exit(main())
