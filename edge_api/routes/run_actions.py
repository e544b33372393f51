"""Actions on one run: start, cancel, retry and fork."""

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from edge_api.http.endpoint import BODY_ERRORS, IDEMPOTENCY_KEY, ApiEndpoint, Handler
from edge_api.http.parsing import idempotency_key, read_json, read_nothing, read_optional, traceparent
from edge_api.http.principal import Principal
from edge_api.http.request_models import ForkRun, RetryRun
from edge_api.http.response_models import Run, RunState
from edge_api.http.responses import created, ok
from edge_api.runs_service import RunService
from edge_api.settings import READ_RUNS, WRITE_RUNS


class RunActionRoutes:
    """Change the status of a run, or create a run from its first steps."""

    def __init__(self, runs: RunService, *, max_body_bytes: int) -> None:
        self._runs = runs
        self._max_body_bytes = max_body_bytes

    def endpoints(self) -> Sequence[ApiEndpoint]:
        """Return the endpoint rows."""
        return [
            _without_body("start", self.start, "startRun", "Queue a created run."),
            _without_body("cancel", self.cancel, "cancelRun", "Cancel a run."),
            ApiEndpoint(
                "POST",
                "/agent/runs/{run_id}/retry",
                self.retry,
                WRITE_RUNS,
                operation_id="retryRun",
                summary="Queue a failed or cancelled run again; completed steps are not repeated.",
                success={200: RunState},
                errors=[*BODY_ERRORS, 404, 409],
                body=RetryRun,
                body_optional=True,
                headers=[IDEMPOTENCY_KEY],
            ),
            ApiEndpoint(
                "POST",
                "/agent/runs/{run_id}/fork",
                self.fork,
                WRITE_RUNS,
                operation_id="forkRun",
                summary="Create a run that begins with the results of the first steps of this run.",
                success={201: Run, 200: Run},
                errors=[*BODY_ERRORS, 404, 409],
                body=ForkRun,
                headers=[IDEMPOTENCY_KEY],
            ),
        ]

    async def start(self, request: Request, principal: Principal) -> Response:
        """`POST /agent/runs/{run_id}/start`."""
        await read_nothing(request, self._max_body_bytes)
        return ok(await self._runs.start(principal.user, request.path_params["run_id"]))

    async def cancel(self, request: Request, principal: Principal) -> Response:
        """`POST /agent/runs/{run_id}/cancel`."""
        await read_nothing(request, self._max_body_bytes)
        return ok(await self._runs.cancel(principal.user, request.path_params["run_id"]))

    async def retry(self, request: Request, principal: Principal) -> Response:
        """`POST /agent/runs/{run_id}/retry`."""
        wanted = await read_optional(request, RetryRun, self._max_body_bytes)
        key = idempotency_key(request)
        return ok(await self._runs.retry(principal.user, request.path_params["run_id"], wanted.limits, key=key))

    async def fork(self, request: Request, principal: Principal) -> Response:
        """`POST /agent/runs/{run_id}/fork`."""
        wanted = await read_json(request, ForkRun, self._max_body_bytes)
        principal.require(READ_RUNS)  # the answer and the new run have the content of another run
        key = idempotency_key(request)
        record, is_new = await self._runs.fork(
            principal.user, request.path_params["run_id"], wanted, key=key, traceparent=traceparent(request)
        )
        return created(record, principal, is_new=is_new)


def _without_body(action: str, handler: Handler, operation_id: str, summary: str) -> ApiEndpoint:
    """Return the row of an action that needs no body. An empty JSON object is accepted; any other body is an error."""
    return ApiEndpoint(
        "POST",
        f"/agent/runs/{{run_id}}/{action}",
        handler,
        WRITE_RUNS,
        operation_id=operation_id,
        summary=summary,
        success={200: RunState},
        errors=[400, 404, 409, 413, 422],
    )
