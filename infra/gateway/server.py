"""The gateway under uvicorn: no access log (URLs may carry `_token`), a shutdown that does not wait for subscribers."""

from __future__ import annotations

import asyncio
import math
import socket

import uvicorn
from starlette.applications import Starlette

from infra.gateway.app import create_gateway, end_streams, give_up
from infra.gateway.settings import GatewaySettings


class GatewayServer(uvicorn.Server):
    """`serve()` on a running loop, or `run()`; stops on SIGTERM, SIGINT or `should_exit = True`."""

    def __init__(self, config: uvicorn.Config, app: Starlette, shutdown_timeout_s: float) -> None:
        super().__init__(config)
        self.app = app
        self._shutdown_timeout_s = shutdown_timeout_s

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        end_streams(self.app)
        last_call = asyncio.get_running_loop().call_later(self._shutdown_timeout_s, give_up, self.app)
        try:
            await super().shutdown(sockets)
        finally:
            last_call.cancel()


def create_server(settings: GatewaySettings) -> GatewayServer:
    """Raises `SettingsError` for a Redis URL it cannot use."""
    app = create_gateway(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        lifespan="on",
        ws="none",
        # Longer than clients keep an idle connection, or they would meet it just as it closes.
        timeout_keep_alive=75,
        # One second more than `give_up` is given, for its answers to go out.
        timeout_graceful_shutdown=math.ceil(settings.shutdown_timeout_s) + 1,
    )
    return GatewayServer(config, app, settings.shutdown_timeout_s)
