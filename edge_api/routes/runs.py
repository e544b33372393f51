"""Runs as resources: created, listed, shown and deleted."""

from collections.abc import Sequence

from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from edge_api.http.cursor import decode_cursor, encode_cursor
from edge_api.http.endpoint import BODY_ERRORS, IDEMPOTENCY_KEY, ApiEndpoint
from edge_api.http.parsing import idempotency_key, read_json, read_query, traceparent
from edge_api.http.principal import Principal
from edge_api.http.request_models import CreateRun, ListQuery, RunQuery, spec_of
from edge_api.http.response_models import AttemptList, Run, RunList, RunSummary
from edge_api.http.responses import created, no_content, ok
from edge_api.logs.run_wait import RunWaits, is_settled
from edge_api.runs_service import RunService
from edge_api.settings import READ_RUNS, WRITE_RUNS
from infra.contract.runs import RunRecord


class RunRoutes:
    """Create, list, show and delete runs."""

    def __init__(self, runs: RunService, waits: RunWaits, *, max_body_bytes: int) -> None:
        self._runs = runs
        self._waits = waits
        self._max_body_bytes = max_body_bytes

    def endpoints(self) -> Sequence[ApiEndpoint]:
        """Return the endpoint rows."""
        return [
            ApiEndpoint(
                "POST",
                "/agent/runs",
                self.create,
                WRITE_RUNS,
                operation_id="createRun",
                summary="Create a run, and start it unless `start` is false.",
                success={201: Run, 200: Run},
                errors=[*BODY_ERRORS, 409],
                body=CreateRun,
                headers=[IDEMPOTENCY_KEY],
            ),
            ApiEndpoint(
                "GET",
                "/agent/runs",
                self.list,
                READ_RUNS,
                operation_id="listRuns",
                summary="List your runs, newest first.",
                success={200: RunList},
                errors=[400, 422],
                query=ListQuery,
            ),
            ApiEndpoint(
                "GET",
                "/agent/runs/{run_id}",
                self.show,
                READ_RUNS,
                operation_id="getRun",
                summary="Get a run; with `wait`, as soon as it has ended or waits for a person, or after that time.",
                success={200: Run},
                errors=[404, 422],
                query=RunQuery,
            ),
            ApiEndpoint(
                "GET",
                "/agent/runs/{run_id}/attempts",
                self.attempts,
                READ_RUNS,
                operation_id="listAttempts",
                summary="List the attempts of a run: the workers that claimed it, and when.",
                success={200: AttemptList},
                errors=[404],
            ),
            ApiEndpoint(
                "DELETE",
                "/agent/runs/{run_id}",
                self.delete,
                WRITE_RUNS,
                operation_id="deleteRun",
                summary="Delete the record, log and files of a run that has ended or was never started.",
                success={204: None},
                errors=[404, 409],
            ),
        ]

    async def create(self, request: Request, principal: Principal) -> Response:
        """`POST /agent/runs`."""
        wanted = await read_json(request, CreateRun, self._max_body_bytes)
        if wanted.source:
            principal.require(READ_RUNS)  # it hands over the content of another run
        key = idempotency_key(request)
        record, is_new = await self._runs.create(
            principal.user, spec_of(wanted), start=wanted.start, key=key, traceparent=traceparent(request)
        )
        return created(record, principal, is_new=is_new)

    async def list(self, request: Request, principal: Principal) -> Response:
        """`GET /agent/runs`."""
        query, user = read_query(request, ListQuery), principal.user
        before = decode_cursor(query.cursor, user) if query.cursor is not None else None
        page = await self._runs.page(user, query, before)
        cursor = encode_cursor(page.cursor, user) if page.cursor else None
        runs = [RunSummary.of(run) for run in page.runs]
        unreadable = page.unreadable or UNSET
        return ok(RunList(runs=runs, next_cursor=cursor, complete=page.complete, unreadable=unreadable))

    async def show(self, request: Request, principal: Principal) -> ASGIApp:
        """`GET /agent/runs/{run_id}`; with `?wait=`, once the run has ended or waits for a person."""
        wait_s = read_query(request, RunQuery).wait
        run_id = request.path_params["run_id"]

        async def read() -> RunRecord:
            return await self._runs.get(principal.user, run_id)

        run = await read()
        if wait_s is None or is_settled(run) or request.method == "HEAD":
            return await self._shown(run)
        return self._waits.response(run.id, read, self._shown, wait_s)

    async def _shown(self, run: RunRecord) -> Response:
        return ok(Run.of(run, await self._runs.place(run)))

    async def attempts(self, request: Request, principal: Principal) -> Response:
        """`GET /agent/runs/{run_id}/attempts`."""
        return ok(AttemptList(attempts=await self._runs.attempts(principal.user, request.path_params["run_id"])))

    async def delete(self, request: Request, principal: Principal) -> Response:
        """`DELETE /agent/runs/{run_id}`."""
        await self._runs.delete(principal.user, request.path_params["run_id"])
        return no_content()
