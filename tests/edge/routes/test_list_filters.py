"""Lists of the runs that failed with one error code."""

from collections.abc import Iterable

import httpx
import pytest

from infra.contract.queue import Writes
from infra.contract.redis_store import reader
from infra.contract.runs import RunError
from infra.contract.states import Outcome, Status
from tests.edge.routes.test_lists import pages
from tests.edge.stack import SimulatedWorker, create, finished


async def fail(http: httpx.AsyncClient, worker: SimulatedWorker, code: str) -> str:
    """Create a run that has failed with this code, and return its id."""
    run_id = await create(http)
    lease = await worker.claim()
    assert lease.run_id == run_id
    error = RunError(code=code, message=f"of the kind {code}", step=0)
    writes = Writes(events=[finished(Status.FAILED)])
    assert await worker.store.finish(lease, Status.FAILED, writes, error=error) is Outcome.OK
    return run_id


async def newest_first(http: httpx.AsyncClient, ids: Iterable[str]) -> list[str]:
    """Return the runs in the order of a list. Two may be of the same millisecond."""
    made = {run_id: (await http.get(f"/agent/runs/{run_id}")).json()["created_ms"] for run_id in ids}
    return sorted(made, key=lambda run_id: (made[run_id], run_id), reverse=True)


def flat(found: list[list[str]]) -> list[str]:
    return [run_id for page in found for run_id in page]


async def test_only_runs_that_failed_with_the_code_are_listed_newest_first_each_once(
    ada: httpx.AsyncClient, bob: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    codes = ["timeout", "exit_code", "timeout", "timeouts", "Timeout", "timeout", "exit_code", "time", "timeout"]
    ids = [(code, await fail(ada, worker, code)) for code in codes]
    await fail(bob, worker, "timeout")
    await create(ada)
    await worker.complete()
    await create(ada, start=False)
    for code in {*codes, "no_such_code"}:
        wanted = await newest_first(ada, [run_id for known, run_id in ids if known == code])
        for query in ({"error": code}, {"error": code, "status": "failed"}):
            for limit in (1, 2, 3, 100):
                assert flat(await pages(ada, limit=limit, **query)) == wanted
    assert flat(await pages(ada, status="failed", limit=4)) == await newest_first(ada, [run_id for _, run_id in ids])


async def test_runs_that_failed_in_the_same_millisecond_are_paged_without_loss(
    ada: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    ids = [(number % 2, await fail(ada, worker, ["exit_code", "timeout"][number % 2])) for number in range(10)]
    for _, run_id in ids:
        await worker.redis.command("ZADD", "user:ada:runs", 1_700_000_000_000, run_id)
    wanted = sorted((run_id for odd, run_id in ids if odd), reverse=True)
    for limit in (1, 2, 5, 6):
        found = await pages(ada, status="failed", error="timeout", limit=limit)
        assert flat(found) == wanted
        assert all(len(page) == limit for page in found[:-1])


async def test_a_listed_run_has_its_error(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    run_id = await fail(ada, worker, "exit_code")
    (run,) = (await ada.get("/agent/runs", params={"error": "exit_code"})).json()["runs"]
    assert (run["run_id"], run["status"]) == (run_id, "failed")
    assert run["error"] == {"code": "exit_code", "message": "of the kind exit_code", "step": 0}


async def test_a_retried_run_is_no_longer_listed_as_failed(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    run_id = await fail(ada, worker, "exit_code")
    assert await pages(ada, error="exit_code", status="queued") == [[]]
    assert (await ada.post(f"/agent/runs/{run_id}/retry")).status_code == 200
    assert await pages(ada, error="exit_code") == [[]]
    await worker.complete()
    assert await pages(ada, error="exit_code") == [[]]


async def test_a_rare_failure_is_found_behind_short_pages(
    ada: httpx.AsyncClient, worker: SimulatedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "MAX_SCAN", 4)
    rare = await fail(ada, worker, "timeout")
    for _ in range(9):
        await fail(ada, worker, "exit_code")
    newest = await fail(ada, worker, "timeout")
    assert await pages(ada, status="failed", error="timeout", limit=2) == [[newest], [], [rare]]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("status=failed&error=", "error"),
        (f"status=failed&error={'x' * 65}", "error"),
        ("status=failed&error=timeout&error=exit_code", "error"),
        ("status=broken&error=timeout", "status"),
        ("status=failed&status=failed&error=timeout", "status"),
        ("status=failed&errors=timeout", "errors"),
    ],
)
async def test_an_invalid_filter_is_rejected_by_name(ada: httpx.AsyncClient, query: str, field: str) -> None:
    answer = await ada.get(f"/agent/runs?{query}")
    problem = answer.json()
    assert (answer.status_code, problem["field"]) == (422, field)
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["type"] == "urn:swissbrain:problem:invalid-input"


async def test_the_longest_possible_code_can_be_a_filter(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    run_id = await fail(ada, worker, "x" * 64)
    assert await pages(ada, error="x" * 64) == [[run_id]]


async def test_a_cursor_of_a_filtered_list_is_only_valid_for_its_user(
    ada: httpx.AsyncClient, bob: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    for _ in range(2):
        await fail(ada, worker, "timeout")
    url = "/agent/runs?error=timeout&limit=1"
    cursor = (await ada.get(url)).json()["next_cursor"]
    assert (await ada.get(f"{url}&cursor={cursor}")).status_code == 200
    answer = await bob.get(f"{url}&cursor={cursor}")
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:swissbrain:problem:bad-cursor")
