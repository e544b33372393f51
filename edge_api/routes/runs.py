"""Runs as resources."""

from starlette.requests import Request
from starlette.responses import Response

from edge_api.auth.api_keys import Principal
from edge_api.http.cursor import decode_cursor, encode_cursor
from edge_api.http.parsing import idempotency_key, read_json, read_nothing, read_query
from edge_api.http.request_models import CreateRun, ForkRun, ListQuery, ResumeRun, spec_of
from edge_api.http.response_models import AttemptList, Run, RunList, RunSummary
from edge_api.http.responses import created, nothing, ok
from edge_api.runs_service import RunService


class RunRoutes:
    """Create, list, look at, move and delete runs."""

    def __init__(self, runs: RunService, *, max_body_bytes: int) -> None:
        self._runs = runs
        self._max_body_bytes = max_body_bytes

    async def create(self, request: Request, principal: Principal) -> Response:
        """`POST /agent/runs`."""
        wanted = await read_json(request, CreateRun, self._max_body_bytes)
        key = idempotency_key(request)
        record, now = await self._runs.create(principal.user, spec_of(wanted), start=wanted.start, key=key)
        return created(record, now=now)

    async def list(self, request: Request, principal: Principal) -> Response:
        """`GET /agent/runs`."""
        query, user = read_query(request, ListQuery), principal.user
        before = decode_cursor(query.cursor, user) if query.cursor is not None else None
        page = await self._runs.page(user, query, before)
        cursor = encode_cursor(page.cursor, user) if page.cursor else None
        return ok(RunList(runs=[RunSummary.of(run) for run in page.runs], next_cursor=cursor))

    async def show(self, request: Request, principal: Principal) -> Response:
        """`GET /agent/runs/{run_id}`."""
        return ok(Run.of(await self._runs.get(principal.user, _run_id(request))))

    async def attempts(self, request: Request, principal: Principal) -> Response:
        """`GET /agent/runs/{run_id}/attempts`."""
        return ok(AttemptList(attempts=await self._runs.attempts(principal.user, _run_id(request))))

    async def start(self, request: Request, principal: Principal) -> Response:
        """`POST /agent/runs/{run_id}/start`."""
        await read_nothing(request, self._max_body_bytes)
        return ok(await self._runs.start(principal.user, _run_id(request)))

    async def cancel(self, request: Request, principal: Principal) -> Response:
        """`POST /agent/runs/{run_id}/cancel`."""
        await read_nothing(request, self._max_body_bytes)
        return ok(await self._runs.cancel(principal.user, _run_id(request)))

    async def retry(self, request: Request, principal: Principal) -> Response:
        """`POST /agent/runs/{run_id}/retry`."""
        await read_nothing(request, self._max_body_bytes)
        return ok(await self._runs.retry(principal.user, _run_id(request), key=idempotency_key(request)))

    async def fork(self, request: Request, principal: Principal) -> Response:
        """`POST /agent/runs/{run_id}/fork`."""
        wanted = await read_json(request, ForkRun, self._max_body_bytes)
        key = idempotency_key(request)
        record, now = await self._runs.fork(principal.user, _run_id(request), wanted, key=key)
        return created(record, now=now)

    async def resume(self, request: Request, principal: Principal) -> Response:
        """`POST /agent/runs/{run_id}/resume`."""
        wanted = await read_json(request, ResumeRun, self._max_body_bytes)
        key = idempotency_key(request)
        return ok(await self._runs.resume(principal.user, _run_id(request), wanted.user_input, key=key))

    async def delete(self, request: Request, principal: Principal) -> Response:
        """`DELETE /agent/runs/{run_id}`."""
        await self._runs.delete(principal.user, _run_id(request))
        return nothing()


def _run_id(request: Request) -> str:
    return str(request.path_params["run_id"])
