"""Batches: several runs created in one request, each with its own idempotency key and its own result."""

import asyncio
from collections.abc import Sequence

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from edge_api.http.endpoint import BODY_ERRORS, ApiEndpoint
from edge_api.http.errors import report
from edge_api.http.parsing import check_key, convert, idempotency_key, read_json, traceparent
from edge_api.http.principal import Principal
from edge_api.http.request_models import BatchRun, CreateBatch, UncheckedBatch, spec_of
from edge_api.http.response_models import BatchResult, BatchResults, Problem
from edge_api.http.responses import ok, visible
from edge_api.runs_service import RunService
from edge_api.settings import READ_RUNS, WRITE_RUNS
from infra.contract.errors import InvalidInput, StoreUnavailable

BATCH_S = 20.0
"""Longest time for a batch; API gateways end a request after 29 s. Runs that were not reached get 503."""


class BatchRoutes:
    """Create several runs."""

    def __init__(self, runs: RunService, *, max_body_bytes: int) -> None:
        self._runs = runs
        self._max_body_bytes = max_body_bytes

    def endpoints(self) -> Sequence[ApiEndpoint]:
        """Return the endpoint rows."""
        return [
            ApiEndpoint(
                "POST",
                "/agent/runs/batch",
                self.create,
                WRITE_RUNS,
                operation_id="createRuns",
                summary="Create up to 100 runs, each with its own result.",
                success={200: BatchResults},
                errors=BODY_ERRORS,
                body=CreateBatch,
            ),
        ]

    async def create(self, request: Request, principal: Principal) -> Response:
        """`POST /agent/runs/batch`."""
        if idempotency_key(request) is not None:
            # Ignored, it would promise that the batch can be repeated without creating runs twice.
            raise InvalidInput("a batch has no key of its own; give each run an 'idempotency_key'", "Idempotency-Key")
        batch = await read_json(request, UncheckedBatch, self._max_body_bytes)
        results: list[BatchResult] = []
        outage: BatchResult | None = None
        ends_at = asyncio.get_running_loop().time() + BATCH_S
        # One after the other, so that the runs are queued in the order of the batch.
        for index, entry in enumerate(batch.runs):
            if outage is None:
                try:
                    async with asyncio.timeout_at(ends_at):
                        results.append(await self._result(request, principal, entry, f"$.runs[{index}]"))
                    continue
                except StoreUnavailable as exc:
                    outage = _refused(report(exc, request.scope)[0])
                except TimeoutError:
                    late = StoreUnavailable(f"the batch took longer than {BATCH_S:g} s")
                    outage = _refused(report(late, request.scope)[0])
            # Without this, each of the runs would wait for the timeout of Redis.
            results.append(outage)
        return ok(BatchResults(results=results))

    async def _result(self, request: Request, principal: Principal, entry: object, at: str) -> BatchResult:
        """Create one run. Raises StoreUnavailable; any other error is the result."""
        try:
            wanted = convert(entry, BatchRun, "$")
            key = check_key(wanted.idempotency_key, "$.idempotency_key")
            if wanted.source:
                principal.require(READ_RUNS)  # it hands over the content of another run
            record, is_new = await self._runs.create(
                principal.user, spec_of(wanted), start=wanted.start, key=key, traceparent=traceparent(request)
            )
        except StoreUnavailable:
            raise
        except Exception as exc:  # noqa: BLE001 a bug that one run meets must not take the others along
            return _refused(_located(report(exc, request.scope)[0], at))
        run = msgspec.structs.replace(visible(record, principal), result=None)
        return BatchResult(status=201 if is_new else 200, run=run)


def _refused(problem: Problem) -> BatchResult:
    return BatchResult(status=problem.status, problem=problem)


def _located(problem: Problem, at: str) -> Problem:
    """Return the problem of a run with its field as seen from the batch."""
    field = (problem.field or "").replace("Idempotency-Key", "$.idempotency_key")
    if field.startswith("$"):
        field = f"{at}{field.removeprefix('$')}"
    return msgspec.structs.replace(problem, field=field or msgspec.UNSET)
