"""Creation of many runs, in batches that the API accepts."""

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec

from swissbrain import endpoints
from swissbrain._async.transport import AsyncTransport
from swissbrain.concurrency import async_sleep
from swissbrain.errors import ApiError, ProtocolError
from swissbrain.messages import ATTEMPTS, BUSY, pause_s, refusal
from swissbrain.models import Problem, Run
from swissbrain.pages import BatchResult
from swissbrain.plan import NewRun

_ENTRY = re.compile(r"^\$\.runs\[\d+\]")


async def create_many(api: AsyncTransport, runs: Sequence[NewRun | Mapping[str, Any]]) -> list[Run | ApiError]:
    """Create runs; return for each, in order, the run or the refusal. Raises the errors of a whole batch."""
    created: list[Run | ApiError] = []
    for batch in endpoints.batches([endpoints.batch_entry(run) for run in runs]):
        created += await _create(api, batch)
    return created


async def _create(api: AsyncTransport, batch: Sequence[msgspec.Raw]) -> list[Run | ApiError]:
    results = await _ask(api, batch)
    for tries in range(1, ATTEMPTS):
        # Each run has an idempotency key: sending it again creates no second one.
        again = [index for index, result in enumerate(results) if result.status in BUSY]
        if not again:
            break
        await async_sleep(pause_s(tries))
        for index, result in zip(again, await _ask(api, [batch[index] for index in again]), strict=True):
            results[index] = result
    return [_outcome(result) for result in results]


async def _ask(api: AsyncTransport, batch: Sequence[msgspec.Raw]) -> list[BatchResult]:
    try:
        results = (await api.ask(endpoints.create_batch(batch))).results
    except ApiError as exc:
        # A run that is too large for any request is alone in its batch.
        if len(batch) == 1 and exc.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return [BatchResult(status=exc.status, problem=Problem(detail=exc.detail, type=exc.kind))]
        raise
    if len(results) != len(batch):
        raise ProtocolError(f"{api.base_url} answered for {len(results)} of {len(batch)} runs")
    return results


def _outcome(result: BatchResult) -> Run | ApiError:
    if result.run is not None:
        return result.run
    problem = result.problem or Problem(detail=f"HTTP status {result.status}")
    # The path begins with the index in this batch, which the caller does not know.
    field = None if problem.field is None else _ENTRY.sub("$", problem.field)
    return refusal(result.status, msgspec.structs.replace(problem, field=field))
