"""The actions of `POST /agent/execute`: another door to what `edge_api.runs_service` does."""

from starlette.requests import Request
from starlette.responses import Response

from edge_api.auth.api_keys import Principal
from edge_api.http.parsing import idempotency_key, read_json
from edge_api.http.request_models import Execute, ExecuteCreate, ExecuteRetry, ExecuteStart, ExecuteStop, spec_of
from edge_api.http.responses import created, ok
from edge_api.runs_service import RunService


class ExecuteRoutes:
    """One endpoint for all actions."""

    def __init__(self, runs: RunService, *, max_body_bytes: int) -> None:
        self._runs = runs
        self._max_body_bytes = max_body_bytes

    async def execute(self, request: Request, principal: Principal) -> Response:
        """`POST /agent/execute`."""
        # A union is no `type` to the type checker, though it is one to msgspec.
        wanted: Execute = await read_json(request, Execute, self._max_body_bytes)  # type: ignore[arg-type]
        user, key = principal.user, idempotency_key(request)
        if isinstance(wanted, ExecuteCreate):
            record, now = await self._runs.create(user, spec_of(wanted), start=False, key=key)
            return created(record, now=now)
        if isinstance(wanted, ExecuteStart):
            return ok(await self._runs.start(user, wanted.run_id))
        if isinstance(wanted, ExecuteStop):
            return ok(await self._runs.cancel(user, wanted.run_id))
        if isinstance(wanted, ExecuteRetry):
            return ok(await self._runs.retry(user, wanted.run_id, key=key))
        return ok(await self._runs.resume(user, wanted.run_id, wanted.user_input, key=key))
