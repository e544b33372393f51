"""Usage of models in runs, lists and the report by day; limits of a retry; partial results of failed runs."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from infra.contract.queue import Lease, Writes
from infra.contract.runs import RunError, RunSpec
from infra.contract.states import Outcome, Status
from infra.contract.usage import RunUsage
from tests.edge.stack import PLAN, SimulatedWorker, create, finished

USED = RunUsage(exchanges=1, input=1000, output=50, cached=200, reasoning=7, costs={"CHF": 1_000_023})
IN_USD = RunUsage(exchanges=2, input=10, output=5, estimated=1, unpriced=1, costs={"USD": 7})
SHOWN = {
    "exchanges": 3,
    "input_tokens": 1010,
    "output_tokens": 55,
    "cached_tokens": 200,
    "reasoning_tokens": 7,
    "estimated": 1,
    "cost": {"CHF": "1.000023", "USD": "0.000007"},
    "unpriced": 1,
}
NONE: dict[str, Any] = dict.fromkeys(SHOWN, 0) | {"cost": {}}


async def prompt_run(ada: httpx.AsyncClient, **fields: Any) -> str:
    answer = await ada.post("/agent/runs", json={"prompt": "x", **fields})
    return str(answer.json()["run_id"])


async def use(worker: SimulatedWorker, lease: Lease, *usages: RunUsage) -> None:
    for usage in usages:
        await worker.store.emit(lease, Writes(usage=usage))
        lease.batch += 1


async def fail(worker: SimulatedWorker, lease: Lease) -> None:
    error = RunError(code="limit_turns", message="20 of 20 turns are used")
    writes = Writes(events=[finished(Status.FAILED)])
    outcome = await worker.store.finish(lease, Status.FAILED, writes, result={"summary": "half"}, error=error)
    assert outcome is Outcome.OK


async def test_a_run_and_the_report_show_usage_with_one_sum_for_each_currency(
    ada: httpx.AsyncClient, bob: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    run_id = await prompt_run(ada)
    assert (await ada.get(f"/agent/runs/{run_id}")).json()["usage"] is None
    lease = await worker.claim()
    await use(worker, lease, USED, IN_USD)
    assert (await ada.get(f"/agent/runs/{run_id}")).json()["usage"] == SHOWN
    (listed,) = (await ada.get("/agent/runs")).json()["runs"]
    assert listed["usage"] == SHOWN

    await worker.finish(lease)
    assert (await ada.delete(f"/agent/runs/{run_id}")).status_code == 204
    report = (await ada.get("/agent/usage", params={"days": 2})).json()
    today = datetime.now(UTC).date()
    # Midnight may pass during the test.
    assert {day.pop("day") for day in report["days"]} <= {str(today), str(today - timedelta(days=1))}
    assert report["total"] == SHOWN
    assert report["days"] == [SHOWN] or len(report["days"]) == 2
    assert (await bob.get("/agent/usage")).json() == {"days": [], "total": NONE}


async def test_days_are_listed_newest_first(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    today = datetime.now(UTC).date()
    for ago in (300, 1, 20):
        key = worker.store.keys.usage("ada", today - timedelta(days=ago))
        await worker.redis.command("HSET", key, "exchanges", ago, "cost:CHF", ago * 1_000_000)
        await worker.redis.command("EXPIRE", key, 60)
    month = (await ada.get("/agent/usage")).json()
    assert [day["exchanges"] for day in month["days"]] == [1, 20]
    assert month["total"]["cost"] == {"CHF": "21.000000"}
    all_days = (await ada.get("/agent/usage", params={"days": 400})).json()
    assert [day["day"] for day in all_days["days"]] == [str(today - timedelta(days=ago)) for ago in (1, 20, 300)]


async def test_a_damaged_day_is_named_beside_the_others(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    days = [datetime.now(UTC).date() - timedelta(days=ago) for ago in (1, 2, 3)]
    whole, overwritten, damaged = (worker.store.keys.usage("ada", day) for day in days)
    await worker.redis.command("HSET", whole, "exchanges", 1)
    await worker.redis.command("SET", overwritten, "garbage")
    await worker.redis.command("HSET", damaged, "exchanges", "many")
    report = (await ada.get("/agent/usage")).json()
    assert [day["day"] for day in report["days"]] == [str(days[0])]
    assert report["total"]["exchanges"] == 1
    assert report["unreadable"] == [str(day) for day in days[1:]]


@pytest.mark.parametrize("days", ["0", "401", "x", "1.5"])
async def test_a_wrong_number_of_days_is_refused(ada: httpx.AsyncClient, days: str) -> None:
    answer = await ada.get("/agent/usage", params={"days": days})
    assert (answer.status_code, answer.json()["field"]) == (422, "days")


async def test_a_failed_run_shows_its_partial_result_beside_its_error(
    ada: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    run_id = await prompt_run(ada)
    await fail(worker, await worker.claim())
    run = (await ada.get(f"/agent/runs/{run_id}")).json()
    assert run["result"] == {"summary": "half"}
    assert run["error"] == {"code": "limit_turns", "message": "20 of 20 turns are used"}


async def test_a_retry_can_raise_limits_and_keeps_the_others(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    run_id = await prompt_run(ada, limits={"turns": 20, "cost": 1.5})
    await fail(worker, await worker.claim())
    path = f"/agent/runs/{run_id}"
    assert (await ada.post(f"{path}/retry", json={"limits": {"turns": 40}})).json()["status"] == "queued"
    assert (await ada.get(path)).json()["limits"] == {"turns": 40, "cost": 1.5}
    await fail(worker, await worker.claim())
    assert (await ada.post(f"{path}/retry")).json()["status"] == "queued"
    assert (await ada.get(path)).json()["limits"] == {"turns": 40, "cost": 1.5}
    await fail(worker, await worker.claim())
    body = {"action": "retry", "run_id": run_id, "limits": {"cost": 2}}
    assert (await ada.post("/agent/execute", json=body)).json()["status"] == "queued"
    assert (await ada.get(path)).json()["limits"] == {"turns": 40, "cost": 2}
    record = await worker.store.get(run_id)
    assert record.spec == RunSpec(prompt="x", limits=record.spec.limits)
    assert record.spec.limits.turns == 20


@pytest.mark.parametrize(
    ("limits", "field"),
    [({"turns": 201}, "$.limits.turns"), ({"turns": 0}, "$.limits.turns"), ({"steps": 1}, "$.limits.steps")],
)
async def test_a_retry_with_a_limit_out_of_range_is_refused(
    ada: httpx.AsyncClient, worker: SimulatedWorker, limits: dict[str, int], field: str
) -> None:
    run_id = await prompt_run(ada)
    await fail(worker, await worker.claim())
    answer = await ada.post(f"/agent/runs/{run_id}/retry", json={"limits": limits})
    assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert (await worker.store.head(run_id)).status is Status.FAILED


async def test_a_run_with_an_explicit_plan_has_no_limits_to_raise(
    ada: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    run_id = await create(ada, **PLAN)
    await worker.complete(status=Status.FAILED)
    answer = await ada.post(f"/agent/runs/{run_id}/retry", json={"limits": {"turns": 5}})
    assert (answer.status_code, answer.json()["field"]) == (422, "$.limits")
    plain = await ada.post(f"/agent/runs/{run_id}/retry", content=b" {}", headers={"Content-Type": "text/plain"})
    assert plain.json()["status"] == "queued"
