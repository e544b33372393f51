"""The state of the service itself."""

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from edge_api.auth.api_keys import Principal
from edge_api.http.response_models import Health
from edge_api.http.responses import ok
from infra.contract.redis_store.commands import RunCommands


class SystemRoutes:
    """Health, readiness, queue depths and the descriptions of the API and of the events."""

    def __init__(self, store: RunCommands, describe: Callable[[], bytes], describe_events: Callable[[], bytes]) -> None:
        self._store = store
        self._describe = describe
        self._describe_events = describe_events

    async def health(self, _request: Request) -> Response:
        """`GET /health`: the process is up; asks nobody else."""
        return ok(Health(status="ok"))

    async def ready(self, _request: Request, _principal: Principal) -> Response:
        """`GET /ready`: Redis can be reached."""
        await self._store.ping()
        return ok(Health(status="ready"))

    async def queue(self, _request: Request, _principal: Principal) -> Response:
        """`GET /agent/queue`: how many runs stand where, of all users."""
        return ok(await self._store.depths())

    async def openapi(self, _request: Request, _principal: Principal) -> Response:
        """`GET /openapi.json`."""
        return Response(self._describe(), media_type="application/json")

    async def event_schema(self, _request: Request, _principal: Principal) -> Response:
        """`GET /events.schema.json`."""
        return Response(self._describe_events(), media_type="application/json")
