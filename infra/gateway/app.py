"""The gateway as an application: `create_gateway(settings)`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from infra.gateway.encoding import error_body
from infra.gateway.endpoint import Endpoint
from infra.gateway.execute import Executor
from infra.gateway.pool import Pool
from infra.gateway.raw import RawReader
from infra.gateway.settings import GatewaySettings
from infra.gateway.streams import Streams


class Gateway:
    """What a running gateway consists of; made and closed by the application's lifespan."""

    def __init__(self, settings: GatewaySettings) -> None:
        target = settings.target()
        self.pool = Pool(target, settings, size=settings.pool_size)
        self.raw_pool = Pool(target, settings, size=1, reader=RawReader)
        self.streams = Streams(target, settings)
        self.endpoint = Endpoint(settings, Executor(self.pool, self.raw_pool), self.streams)

    async def close(self) -> None:
        await self.streams.close()
        await self.pool.close()
        await self.raw_pool.close()


class _EveryPath(BaseRoute):
    """A path is a command with arguments of any bytes, line feeds included, which path patterns do not match."""

    def __init__(self, app: Starlette) -> None:
        self._app = app

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return (Match.FULL if scope["type"] == "http" else Match.NONE), {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        gateway: Gateway = self._app.state.gateway
        await gateway.endpoint(scope, receive, send)


def create_gateway(settings: GatewaySettings) -> Starlette:
    """Serves the Upstash Redis REST protocol; connects to Redis when the first command needs it.

    Needs its lifespan run. While it runs, `app.state.gateway` is the `Gateway`; `end_streams(app)` lets a server
    shut down without waiting for subscribers. Raises `SettingsError` for a Redis URL it cannot use.
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
    app.router.routes.append(_EveryPath(app))
    return app


async def _internal_error(_request: Request, _exc: Exception) -> Response:
    """The server logs the error with its traceback; the client is not told more than that there was one."""
    return Response(error_body("ERR internal error"), 500, media_type="application/json")


def end_streams(app: Starlette) -> None:
    """Ends every event stream and accepts no new one: the first step of a shutdown."""
    if gateway := _running(app):
        gateway.streams.end()


def give_up(app: Starlette) -> None:
    """Answers every command still waiting for Redis with an error: the last step before a shutdown is forced."""
    if gateway := _running(app):
        gateway.pool.give_up()
        gateway.raw_pool.give_up()


def _running(app: Starlette) -> Gateway | None:
    gateway: Gateway | None = getattr(app.state, "gateway", None)
    return gateway
