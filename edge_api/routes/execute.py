"""`POST /agent/execute`: the run actions behind one endpoint, selected by the field `action`."""

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from edge_api.http.endpoint import BODY_ERRORS, IDEMPOTENCY_KEY, ApiEndpoint
from edge_api.http.parsing import idempotency_key, read_json, traceparent
from edge_api.http.principal import Principal
from edge_api.http.request_models import (
    Execute,
    ExecuteCreate,
    ExecuteInterrupt,
    ExecuteMessage,
    ExecuteRetry,
    ExecuteStart,
    ExecuteStop,
    spec_of,
)
from edge_api.http.response_models import Run, RunState
from edge_api.http.responses import created, ok
from edge_api.people_service import PeopleService
from edge_api.runs_service import RunService
from edge_api.settings import READ_RUNS, WRITE_RUNS


class ExecuteRoutes:
    """One endpoint for all actions."""

    def __init__(self, runs: RunService, people: PeopleService, *, max_body_bytes: int) -> None:
        self._runs = runs
        self._people = people
        self._max_body_bytes = max_body_bytes

    def endpoints(self) -> Sequence[ApiEndpoint]:
        """Return the endpoint rows."""
        return [
            ApiEndpoint(
                "POST",
                "/agent/execute",
                self.execute,
                WRITE_RUNS,
                operation_id="execute",
                summary="Create, start, stop, retry, resume or interrupt a run, or send it a message.",
                success={201: Run, 200: (Run, RunState)},
                errors=(*BODY_ERRORS, 404, 409),
                body=Execute,
                headers=[IDEMPOTENCY_KEY],
            ),
        ]

    async def execute(self, request: Request, principal: Principal) -> Response:
        """`POST /agent/execute`."""
        # mypy rejects a union as `type[T]`, though msgspec decodes into one.
        wanted: Execute = await read_json(request, Execute, self._max_body_bytes)  # type: ignore[arg-type]
        user, key = principal.user, idempotency_key(request)
        if isinstance(wanted, ExecuteCreate):
            if wanted.source:
                principal.require(READ_RUNS)  # it hands over the content of another run
            record, is_new = await self._runs.create(
                user, spec_of(wanted), start=False, key=key, traceparent=traceparent(request)
            )
            return created(record, principal, is_new=is_new)
        if isinstance(wanted, ExecuteStart):
            return ok(await self._runs.start(user, wanted.run_id))
        if isinstance(wanted, ExecuteStop):
            return ok(await self._runs.cancel(user, wanted.run_id))
        if isinstance(wanted, ExecuteRetry):
            return ok(await self._runs.retry(user, wanted.run_id, wanted.limits, key=key))
        if isinstance(wanted, ExecuteMessage):
            return ok(await self._people.message(user, wanted.run_id, wanted.text, key=key))
        if isinstance(wanted, ExecuteInterrupt):
            return ok(await self._people.interrupt(user, wanted.run_id))
        return ok(await self._people.resume(principal, wanted.run_id, wanted, key=key))
