"""`python -m infra.gateway`: exit code 2 and one line on stderr when a setting is missing or bad."""

from __future__ import annotations

import gc
import os
import sys
from typing import TYPE_CHECKING

from infra.asgi_server import serve
from infra.gateway.server import create_server
from infra.gateway.settings import GatewaySettings
from infra.settings import Env

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from infra.asgi_server import StreamServer

# A reply of millions of lists would make Python examine all objects again and again while it is parsed, for as long as
# a second at a time. Objects in cycles are few here: they can wait for 5 million allocations.
_GC_THRESHOLD = (10_000, 10, 50)


def main() -> int:
    """Serve until SIGTERM or SIGINT; return the exit code."""
    return serve(_prepare)


def _prepare() -> tuple[GatewaySettings, Callable[[socket.socket], StreamServer]]:
    settings = GatewaySettings.from_env(Env(os.environ))

    def create(_listener: socket.socket) -> StreamServer:
        gc.set_threshold(*_GC_THRESHOLD)
        return create_server(settings)

    return settings, create


if __name__ == "__main__":
    sys.exit(main())
