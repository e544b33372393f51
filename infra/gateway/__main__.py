"""`python -m infra.gateway`: exit code 2 and one line on stderr when a setting is missing or bad."""

from __future__ import annotations

import gc
import os
import sys

from infra.asgi_server import listen
from infra.gateway.server import create_server
from infra.gateway.settings import GatewaySettings
from infra.http_limits import raise_descriptor_limit
from infra.logging import configure
from infra.process_state import reset_inherited_state
from infra.settings import Env, SettingsError

# A reply of millions of lists would make Python examine all objects again and again while it is parsed, for as long as
# a second at a time. Objects in cycles are few here: they can wait for 5 million allocations.
_GC_THRESHOLD = (10_000, 10, 50)


def main() -> int:
    """Serve until SIGTERM or SIGINT; return the exit code."""
    reset_inherited_state()
    try:
        settings = GatewaySettings.from_env(Env(os.environ))
    except SettingsError as exc:
        sys.stderr.write(f"{exc}\n")
        return 2
    try:
        listener = listen(settings.host, settings.port)
    except OSError as exc:
        sys.stderr.write(f"cannot listen on {settings.host}:{settings.port}: {exc.strerror}\n")
        return 1
    configure()
    gc.set_threshold(*_GC_THRESHOLD)
    raise_descriptor_limit()
    server = create_server(settings)
    server.run(sockets=[listener])
    return 0 if server.started else 1


if __name__ == "__main__":
    sys.exit(main())
