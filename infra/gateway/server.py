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
from infra.http_limits import RESERVED_DESCRIPTORS, HttpLimits, connection_limit


class GatewayServer(StreamServer):
    """Server that answers every command with an error if Redis has not replied within `shutdown_timeout_s`."""

    def __init__(self, config: uvicorn.Config, app: Starlette, limits: HttpLimits, shutdown_timeout_s: float) -> None:
        super().__init__(config, app, end_streams, limits)
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
    # One connection to Redis beside the pool serves all subscribers.
    reserved = RESERVED_DESCRIPTORS + settings.pool_size
    limits = HttpLimits(connection_limit(settings.max_connections, reserved=reserved))
    config = server_config(
        app,
        settings.host,
        settings.port,
        limits,
        proxy_headers=False,
        # One second more than the commands have, for the error responses to be sent.
        timeout_graceful_shutdown=math.ceil(settings.shutdown_timeout_s) + 1,
    )
    return GatewayServer(config, app, limits, settings.shutdown_timeout_s)
