"""The application: `create_app` builds routes, access checks and the API description from the endpoint rows."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Scope

from edge_api.auth.stream_tokens import StreamTokens, extract_tokens
from edge_api.http.base_path import BasePath
from edge_api.http.endpoint import ApiEndpoint
from edge_api.http.handlers import HANDLERS
from edge_api.http.last_resort import LastResort
from edge_api.http.principal import ANONYMOUS, Authenticate, Principal
from edge_api.logs.fanout import Fanout
from edge_api.logs.pages import LogPages
from edge_api.logs.reader import LogReader
from edge_api.logs.run_wait import RunWaits
from edge_api.logs.sse import LogStreams
from edge_api.metering import Metering, route_found
from edge_api.people_service import PeopleService
from edge_api.ports import WorkspaceStore
from edge_api.routes.batches import BatchRoutes
from edge_api.routes.execute import ExecuteRoutes
from edge_api.routes.files import FileRoutes
from edge_api.routes.internal import InternalRoutes
from edge_api.routes.logs import LogRoutes
from edge_api.routes.people import PeopleRoutes
from edge_api.routes.run_actions import RunActionRoutes
from edge_api.routes.runs import RunRoutes
from edge_api.routes.schedules import ScheduleRoutes
from edge_api.routes.steps import StepRoutes
from edge_api.routes.stream_tokens import StreamTokenRoutes
from edge_api.routes.system import SystemRoutes
from edge_api.routes.usage import UsageRoutes
from edge_api.routes.webhooks import WebhookRoutes
from edge_api.runs_service import RunService
from edge_api.schedules_service import ScheduleService, Scheduling
from edge_api.settings import ApiSettings
from edge_api.steps import RunSteps
from edge_api.webhooks_service import WebhookService
from infra.contract.log import LogFeed
from infra.contract.redis_store.commands import RunCommands

CORS_MAX_AGE_S = 3600


class ExactRoute(Route):
    """Route that does not match a path with a line feed at its end, such as `/health%0a`. Starlette's `$` would."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match the path of a request, whose root path is empty."""
        # Not by another pattern: to compile a second one for each route costs a cold start 4 ms.
        path = scope.get("path", "")
        if path.endswith("\n") and not self.path_regex.fullmatch(path):
            return Match.NONE, {}
        return super().matches(scope)


def create_app(
    store: RunCommands,
    feed: LogFeed,
    workspaces: WorkspaceStore,
    authenticate: Authenticate,
    settings: ApiSettings,
    *,
    scheduling: Scheduling | None = None,
    webhooks: WebhookService | None = None,
    close: Callable[[], Awaitable[None]] | None = None,
) -> Starlette:
    """Return the API over its adapters. `close` is called when the server's lifespan ends.

    Nothing connects before the first request. Call `end_streams(app)` to shut down without waiting for clients that
    follow a log. `app.state.endpoints` lists the endpoint rows. Without `scheduling` there are no schedules,
    without `webhooks` no webhooks.
    """
    fanout = Fanout(feed)
    streams = LogStreams(fanout.wait_closed)
    tokens = StreamTokens(settings.stream_token_keys)
    webhooks = webhooks or WebhookService()
    runs = RunService(store, workspaces, webhooks)
    people = PeopleService(store, runs)
    pages = LogPages(store, workspaces.logs)
    limit = settings.max_body_bytes

    def description() -> bytes:
        from edge_api.http import openapi

        return openapi.build(settings, endpoints)

    endpoints: Sequence[ApiEndpoint] = [
        *ExecuteRoutes(runs, people, max_body_bytes=limit).endpoints(),
        *BatchRoutes(runs, max_body_bytes=limit).endpoints(),
        *RunRoutes(runs, RunWaits(store, fanout, streams), max_body_bytes=limit).endpoints(),
        *RunActionRoutes(runs, max_body_bytes=limit).endpoints(),
        *PeopleRoutes(people, max_body_bytes=limit).endpoints(),
        *StreamTokenRoutes(runs, tokens, max_body_bytes=limit).endpoints(),
        *FileRoutes(runs, workspaces, presign_expiry_s=settings.presign_expiry_s, max_body_bytes=limit).endpoints(),
        *LogRoutes(runs, pages, LogReader(store, fanout, workspaces.logs), streams, settings).endpoints(),
        *StepRoutes(runs, RunSteps(store, pages), workspaces, presign_expiry_s=settings.presign_expiry_s).endpoints(),
        *UsageRoutes(store).endpoints(),
        *WebhookRoutes(runs, webhooks, max_body_bytes=limit).endpoints(),
        *_schedule_endpoints(store, ScheduleService(runs, scheduling), webhooks, limit),
        # Both descriptions are built by the first request for them: a cold start need not pay for them.
        *SystemRoutes(store, cache(description), cache(_event_description)).endpoints(),
    ]

    app = Starlette(
        routes=_routes(endpoints, authenticate, tokens),
        middleware=_middleware(settings),
        exception_handlers=dict(HANDLERS),
        lifespan=_lifespan(streams, fanout, close),
    )
    # A redirect would be built from the Host header, and no path here ends in a slash.
    app.router.redirect_slashes = False
    app.state.streams = streams
    app.state.endpoints = endpoints
    return app


def end_streams(app: Starlette) -> None:
    """End every open log stream, and every later one as soon as it opens. The first step of a shutdown."""
    streams: LogStreams = app.state.streams
    streams.end()


def _lifespan(
    streams: LogStreams, fanout: Fanout, close: Callable[[], Awaitable[None]] | None
) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        streams.end()
        await fanout.close()
        if close is not None:
            await close()

    return lifespan


def _event_description() -> bytes:
    from edge_api.http import event_schema

    return event_schema.build()


def _schedule_endpoints(
    store: RunCommands, schedules: ScheduleService, webhooks: WebhookService, limit: int
) -> Sequence[ApiEndpoint]:
    """Return the rows of schedules, and of the calls of QStash."""
    internal = InternalRoutes(store, schedules, webhooks)
    return [*ScheduleRoutes(schedules, max_body_bytes=limit).endpoints(), *internal.endpoints()]


def _middleware(settings: ApiSettings) -> list[Middleware]:
    inner = [Middleware(LastResort), Middleware(BasePath, settings.base_path)]
    # Outermost, so that requests which end in another middleware are counted, too.
    metering = [Middleware(Metering, settings.emf_namespace)] if settings.emf_namespace else []
    if not settings.cors_origins:
        return [*metering, *inner]
    cors = Middleware(
        CORSMiddleware,
        allow_origins=settings.cors_origins,
        allow_methods=("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"),
        # Replacements for EventSource, as those of React Native, send `Cache-Control: no-cache` and
        # `X-Requested-With: XMLHttpRequest`; OpenTelemetry may add `Tracestate` to `Traceparent`.
        allow_headers=(
            "Authorization",
            "Cache-Control",
            "Content-Type",
            "Idempotency-Key",
            "Last-Event-ID",
            "Traceparent",
            "Tracestate",
            "X-Requested-With",
        ),
        expose_headers=("Location", "Retry-After"),
        max_age=CORS_MAX_AGE_S,
    )
    # CORS is outside of the rest: a page can read an error, also an unexpected one, only if it has the CORS headers.
    return [*metering, cors, *inner]


def _routes(endpoints: Sequence[ApiEndpoint], authenticate: Authenticate, stream_tokens: StreamTokens) -> list[Route]:
    """Return one route for each path, with all of its methods, so that the header `Allow` of a 405 lists them all."""
    by_path: dict[str, dict[str, ApiEndpoint]] = {}
    for endpoint in endpoints:
        by_path.setdefault(endpoint.path, {})[endpoint.method] = endpoint
    return [_route(path, by_method, authenticate, stream_tokens) for path, by_method in by_path.items()]


def _route(
    path: str, by_method: dict[str, ApiEndpoint], authenticate: Authenticate, stream_tokens: StreamTokens
) -> Route:
    async def dispatch(request: Request) -> ASGIApp:
        endpoint = by_method["GET" if request.method == "HEAD" else request.method]
        route_found(f"{endpoint.method} {path}")
        principal, request = await _authorize(endpoint, request, authenticate, stream_tokens)
        return await endpoint.handler(request, principal)

    return ExactRoute(path, dispatch, methods=list(by_method))


async def _authorize(
    endpoint: ApiEndpoint, request: Request, authenticate: Authenticate, stream_tokens: StreamTokens
) -> tuple[Principal, Request]:
    """Return the principal, and the request without stream tokens.

    Raises Unauthenticated, Forbidden, StreamTokenInvalid, StreamTokenExpired, StreamTokenForAnotherRun.
    """
    if endpoint.public:
        return ANONYMOUS, request
    tokens, request = extract_tokens(request) if endpoint.stream_token else ([], request)
    principal = stream_tokens.principal(tokens, request) if tokens else await authenticate(request)
    if endpoint.scope is not None:
        principal.require(endpoint.scope)
    return principal, request
