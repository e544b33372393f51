"""The gateway as an ASGI application: `create_gateway(settings)`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from infra.gateway.encoding import error_body
from infra.gateway.endpoint import GatewayEndpoint
from infra.gateway.execute import CommandExecutor
from infra.gateway.pool import Pool
from infra.gateway.raw import RawReader
from infra.gateway.settings import GatewaySettings
from infra.gateway.streams import StreamEndpoints


class Gateway:
    """Parts of a running gateway; created and closed by the application's lifespan."""

    def __init__(self, settings: GatewaySettings) -> None:
        target = settings.target()
        self.pool = Pool(target, settings, size=settings.pool_size)
        self.raw_pool = Pool(target, settings, size=1, reader=RawReader)
        self.streams = StreamEndpoints(target, settings)
        self.endpoint = GatewayEndpoint(
            settings, CommandExecutor(self.pool, self.raw_pool, settings.max_response_bytes), self.streams
        )

    async def close(self) -> None:
        """Close all streams and connections."""
        await self.streams.close()
        await self.pool.close()
        await self.raw_pool.close()


class _CatchAllRoute(BaseRoute):
    """Route of every path."""

    # Starlette's path patterns do not match line feeds, but a path is a command whose arguments may be any bytes.

    def __init__(self, app: Starlette) -> None:
        self._app = app

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return (Match.FULL if scope["type"] == "http" else Match.NONE), {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        gateway: Gateway = self._app.state.gateway
        await gateway.endpoint(scope, receive, send)


def create_gateway(settings: GatewaySettings) -> Starlette:
    """Return an application that serves the Upstash Redis REST protocol.

    Its lifespan must run: `app.state.gateway` is then the `Gateway`, which connects to Redis for the first command.
    Before a shutdown, a server calls `end_streams(app)`, so that it need not wait for subscribers.
    Raises `SettingsError` for an unusable Redis URL.
    """
    settings.target()

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        gateway = app.state.gateway = Gateway(settings)
        try:
            yield
        finally:
            await gateway.close()

    app = Starlette(lifespan=lifespan, exception_handlers={Exception: _internal_error})
    app.router.routes.append(_CatchAllRoute(app))
    return app


async def _internal_error(_request: Request, _exc: Exception) -> Response:
    # The server logs the error with its traceback; details are none of the client's business.
    return Response(error_body("ERR internal error"), 500, media_type="application/json")


def end_streams(app: Starlette) -> None:
    """End every event stream and reject new ones: the first step of a shutdown."""
    if gateway := _running(app):
        gateway.streams.end_all()


def abort_commands(app: Starlette) -> None:
    """Respond with an error to every command that still waits for Redis: the last step before a forced shutdown."""
    if gateway := _running(app):
        gateway.pool.abort()
        gateway.raw_pool.abort()


def _running(app: Starlette) -> Gateway | None:
    gateway: Gateway | None = getattr(app.state, "gateway", None)
    return gateway
