"""The gateway under uvicorn."""

from __future__ import annotations

import asyncio
import math
import socket

import uvicorn
from starlette.applications import Starlette

from infra.asgi_server import StreamServer, server_config
from infra.gateway.app import abort_commands, create_gateway, end_streams
from infra.gateway.settings import GatewaySettings

KEEP_ALIVE_S = 75
"""Longer than clients keep an idle connection; otherwise a client may send a request just as the server closes it."""


class GatewayServer(StreamServer):
    """Server that answers every command with an error if Redis has not replied within `shutdown_timeout_s`."""

    def __init__(self, config: uvicorn.Config, app: Starlette, shutdown_timeout_s: float) -> None:
        super().__init__(config, app, end_streams)
        self._shutdown_timeout_s = shutdown_timeout_s

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams, wait for commands under way, abort those that take too long."""
        # A client whose connection is cut without a response would send its command again, and it may have run.
        timer = asyncio.get_running_loop().call_later(self._shutdown_timeout_s, abort_commands, self.app)
        try:
            await super().shutdown(sockets)
        finally:
            timer.cancel()


def create_server(settings: GatewaySettings) -> GatewayServer:
    """Return the gateway's server. Raises SettingsError for an unusable Redis URL."""
    app = create_gateway(settings)
    config = server_config(
        app,
        settings.host,
        settings.port,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        # One second more than the commands have, for the error responses to be sent.
        timeout_graceful_shutdown=math.ceil(settings.shutdown_timeout_s) + 1,
    )
    return GatewayServer(config, app, settings.shutdown_timeout_s)
