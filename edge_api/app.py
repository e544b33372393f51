"""The application: `create_app(...)`, with the one table of its routes."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache, partial
from itertools import groupby

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp

from edge_api.auth.api_keys import Authenticate, Principal
from edge_api.auth.stream_tokens import StreamTokens, taken_from
from edge_api.http import event_schema, openapi
from edge_api.http.errors import HANDLERS, LastResort
from edge_api.logs.fanout import Fanout
from edge_api.logs.reader import LogReader
from edge_api.logs.sse import Streams
from edge_api.ports import Workspaces
from edge_api.routes.execute import ExecuteRoutes
from edge_api.routes.files import FileRoutes
from edge_api.routes.logs import LogRoutes
from edge_api.routes.runs import RunRoutes
from edge_api.routes.stream_tokens import StreamTokenRoutes
from edge_api.routes.system import SystemRoutes
from edge_api.runs_service import RunService
from edge_api.settings import ApiSettings
from infra.contract.log import LogFeed
from infra.contract.redis_store.commands import RunCommands

READ = "runs:read"
WRITE = "runs:write"
CORS_MAX_AGE_S = 3600

Guarded = Callable[[Request, Principal], Awaitable[ASGIApp]]


@dataclass(frozen=True)
class Endpoint:
    """One line of the route table. `scope` None: any known principal may.

    `stream_token`: a stream token of the run in the path will do instead of a bearer token.
    """

    method: str
    path: str
    handler: Guarded
    scope: str | None = None
    stream_token: bool = False


def create_app(
    store: RunCommands,
    feed: LogFeed,
    files: Workspaces,
    authenticate: Authenticate,
    settings: ApiSettings,
    *,
    close: Callable[[], Awaitable[None]] | None = None,
) -> Starlette:
    """The API over its adapters. `close` is called when the server's lifespan ends.

    Nothing connects before the first request. `end_streams(app)` lets a server shut down without waiting for those
    who follow a log.
    """
    fanout = Fanout(feed)
    streams = Streams(fanout.settle)
    runs = RunService(store, files)
    tokens = StreamTokens(settings.stream_token_keys)
    system = SystemRoutes(store, cache(partial(openapi.build, settings)), cache(event_schema.build))
    logs = LogRoutes(runs, LogReader(store, fanout, files.logs), streams, settings)
    table = _table(runs, logs, tokens, files, system, settings)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        streams.end()
        await fanout.close()
        if close is not None:
            await close()

    app = Starlette(
        routes=[
            Route("/health", system.health, methods=["GET"]),
            *(
                _resource(path, list(endpoints), authenticate, tokens)
                for path, endpoints in groupby(table, lambda endpoint: endpoint.path)
            ),
        ],
        middleware=_middleware(settings),
        exception_handlers=dict(HANDLERS),
        lifespan=lifespan,
    )
    # A redirect would be built from the Host header, and no path here ends in a slash.
    app.router.redirect_slashes = False
    app.state.streams = streams
    return app


def _table(
    runs: RunService,
    logs: LogRoutes,
    tokens: StreamTokens,
    files: Workspaces,
    system: SystemRoutes,
    settings: ApiSettings,
) -> Sequence[Endpoint]:
    """Every route but the open one; those of one path stand together."""
    execute = ExecuteRoutes(runs, max_body_bytes=settings.max_body_bytes)
    run = RunRoutes(runs, max_body_bytes=settings.max_body_bytes)
    file = FileRoutes(runs, files, presign_expiry_s=settings.presign_expiry_s)
    token = StreamTokenRoutes(runs, tokens, max_body_bytes=settings.max_body_bytes)
    return [
        Endpoint("POST", "/agent/execute", execute.execute, WRITE),
        Endpoint("POST", "/agent/runs", run.create, WRITE),
        Endpoint("GET", "/agent/runs", run.list, READ),
        Endpoint("GET", "/agent/runs/{run_id}", run.show, READ),
        Endpoint("DELETE", "/agent/runs/{run_id}", run.delete, WRITE),
        Endpoint("GET", "/agent/runs/{run_id}/attempts", run.attempts, READ),
        Endpoint("POST", "/agent/runs/{run_id}/start", run.start, WRITE),
        Endpoint("POST", "/agent/runs/{run_id}/cancel", run.cancel, WRITE),
        Endpoint("POST", "/agent/runs/{run_id}/retry", run.retry, WRITE),
        Endpoint("POST", "/agent/runs/{run_id}/fork", run.fork, WRITE),
        Endpoint("POST", "/agent/runs/{run_id}/resume", run.resume, WRITE),
        Endpoint("POST", "/agent/runs/{run_id}/stream-token", token.mint, READ),
        Endpoint("GET", "/agent/runs/{run_id}/files", file.list, READ),
        Endpoint("GET", "/agent/runs/{run_id}/files/{path:path}", file.fetch, READ),
        Endpoint("GET", "/agent/logs/{run_id}", logs.page, READ, stream_token=True),
        Endpoint("GET", "/agent/logs/{run_id}/stream", logs.stream, READ, stream_token=True),
        Endpoint("GET", "/agent/queue", system.queue, READ),
        Endpoint("GET", "/ready", system.ready),
        Endpoint("GET", "/openapi.json", system.openapi),
        Endpoint("GET", "/events.schema.json", system.event_schema),
    ]


def end_streams(app: Starlette) -> None:
    """End every log stream and those to come: the first step of a shutdown."""
    streams: Streams = app.state.streams
    streams.end()


def _middleware(settings: ApiSettings) -> list[Middleware]:
    """Outermost first: a page can only read an error, also one that nobody foresaw, if it has the CORS headers."""
    last_resort = Middleware(LastResort)
    if not settings.cors_origins:
        return [last_resort]
    cors = Middleware(
        CORSMiddleware,
        allow_origins=settings.cors_origins,
        allow_methods=("GET", "HEAD", "POST", "DELETE"),
        allow_headers=("Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID"),
        expose_headers=("Location", "Retry-After"),
        max_age=CORS_MAX_AGE_S,
    )
    return [cors, last_resort]


def _resource(
    path: str, endpoints: Sequence[Endpoint], authenticate: Authenticate, stream_tokens: StreamTokens
) -> Route:
    """All methods of one path as one route, so that a refused method is told about all that are allowed."""
    by_method = {endpoint.method: endpoint for endpoint in endpoints}

    async def dispatch(request: Request) -> ASGIApp:
        endpoint = by_method["GET" if request.method == "HEAD" else request.method]
        tokens, request = taken_from(request) if endpoint.stream_token else ([], request)
        principal = stream_tokens.principal(tokens, request) if tokens else await authenticate(request)
        if endpoint.scope is not None:
            principal.require(endpoint.scope)
        return await endpoint.handler(request, principal)

    return Route(path, dispatch, methods=list(by_method))
