"""The gateway under uvicorn: no access log (URLs may carry `_token`), a shutdown that does not wait for subscribers."""

from __future__ import annotations

import socket

import uvicorn
from starlette.applications import Starlette

from infra.gateway.app import create_gateway, end_streams
from infra.gateway.settings import GatewaySettings


class GatewayServer(uvicorn.Server):
    """`serve()` on a running loop, or `run()`; stops on SIGTERM, SIGINT or `should_exit = True`."""

    def __init__(self, config: uvicorn.Config, app: Starlette) -> None:
        super().__init__(config)
        self.app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        end_streams(self.app)
        await super().shutdown(sockets)


def create_server(settings: GatewaySettings) -> GatewayServer:
    app = create_gateway(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        access_log=False,
        log_config=None,
        server_header=False,
        lifespan="on",
        ws="none",
        proxy_headers=False,
        timeout_graceful_shutdown=max(1, round(settings.shutdown_timeout_s)),
    )
    return GatewayServer(config, app)
