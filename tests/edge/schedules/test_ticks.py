"""Ticks: whatever QStash, the network and the API do, each tick of a schedule is one run."""

from typing import Any

import httpx
import pytest

from edge_api.runs_service import RunService
from infra.contract.errors import StoreUnavailable
from infra.redis_tcp import RedisTcp
from tests.edge.schedules.conftest import Site, make, runs_of
from tests.edge.stack import SimulatedWorker

FAULTS = ["forged", "unsigned", "duplicate", "lost", "refused", "late", "lost", "duplicate"]


async def test_a_tick_starts_one_run(site: Site, ada: httpx.AsyncClient) -> None:
    schedule_id = await make(ada)

    await site.fire(schedule_id)
    await site.settled()

    (run,) = await runs_of(ada, schedule_id)
    assert (run["status"], run["metadata"]) == ("queued", {"schedule": schedule_id})
    last = (await ada.get(f"/agent/schedules/{schedule_id}")).json()["last"]
    assert (last["outcome"], last["run_id"]) == ("started", run["run_id"])


async def test_a_damaged_record_of_the_last_run_does_not_keep_a_schedule_from_the_next(
    site: Site, ada: httpx.AsyncClient
) -> None:
    schedule_id = await make(ada)
    await site.fire(schedule_id)
    await site.settled()
    (run,) = await runs_of(ada, schedule_id)
    await site.redis.command("DEL", f"run:{run['run_id']}")
    await site.redis.command("SET", f"run:{run['run_id']}", "garbage")
    await site.redis.command(
        "HSET", f"schedule:{schedule_id}", "last", f'{{"at_ms":1,"outcome":"started","run_id":"{run["run_id"]}"}}'
    )

    answer = await ada.post(f"/agent/schedules/{schedule_id}/run-now")

    assert answer.json()["outcome"] == "started"


async def test_faults_of_the_network_make_no_run_more_or_less(site: Site, ada: httpx.AsyncClient) -> None:
    schedule_id = await make(ada, overlap="queue")
    site.network.next_faults += FAULTS

    for number in range(1, 6):
        await site.fire(schedule_id, number)
        await site.settled()

    assert len(await runs_of(ada, schedule_id)) == 5
    assert await site.dead_letters() == 0
    assert not site.network.next_faults
    assert {status for fault, status in site.network.answers if fault in {"forged", "unsigned"}} == {401}
    assert {status for fault, status in site.network.answers if fault in {"", "duplicate"}} == {200}


@pytest.mark.parametrize(
    ("overlap", "outcomes", "statuses"),
    [
        ("skip", ["started", "skipped"], ["running"]),
        ("queue", ["started", "started"], ["queued", "running"]),
        ("cancel", ["started", "started"], ["queued", "running"]),
    ],
)
async def test_overlap_policies(
    site: Site,
    ada: httpx.AsyncClient,
    worker: SimulatedWorker,
    overlap: str,
    outcomes: list[str],
    statuses: list[str],
) -> None:
    schedule_id = await make(ada, overlap=overlap)
    seen = []
    for number in (1, 2):
        await site.fire(schedule_id, number)
        await site.settled()
        seen.append((await ada.get(f"/agent/schedules/{schedule_id}")).json()["last"]["outcome"])
        if number == 1:
            await worker.claim()

    runs = await runs_of(ada, schedule_id)

    assert seen == outcomes
    assert [run["status"] for run in runs] == statuses
    shown = (await ada.get(f"/agent/runs/{runs[-1]['run_id']}")).json()
    assert shown["cancel_requested"] == (overlap == "cancel")


async def test_a_paused_schedule_creates_no_run_even_if_qstash_still_calls(site: Site, ada: httpx.AsyncClient) -> None:
    schedule_id = await make(ada)
    site.qstash.next_faults.append("before")
    assert (await ada.patch(f"/agent/schedules/{schedule_id}", json={"paused": True})).status_code == 503

    await site.fire(schedule_id)
    await site.settled()

    assert await runs_of(ada, schedule_id) == []
    assert await site.dead_letters() == 0


async def test_a_schedule_that_only_qstash_knows_is_deleted_there(site: Site, ada: httpx.AsyncClient) -> None:
    schedule_id = await make(ada)
    site.qstash.next_faults.append("before")
    assert (await ada.delete(f"/agent/schedules/{schedule_id}")).status_code == 503
    assert (await ada.get(f"/agent/schedules/{schedule_id}")).status_code == 404
    assert [*await site.known()] == [schedule_id]

    await site.fire(schedule_id)
    await site.settled()

    assert await site.known() == {}
    assert await runs_of(ada, schedule_id) == []


async def test_an_api_that_dies_between_decision_and_run_makes_one_run(
    site: Site, ada: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule_id = await make(ada)
    create = RunService.create
    deaths = ["before", "after", ""]

    async def dies(self: RunService, *args: Any, **options: Any) -> Any:
        death = deaths.pop(0) if deaths else ""
        if death == "before":
            raise StoreUnavailable("died before the run was created")
        made = await create(self, *args, **options)
        if death == "after":
            raise StoreUnavailable("died after the run was created")
        return made

    monkeypatch.setattr(RunService, "create", dies)
    await site.fire(schedule_id)
    await site.settled()

    assert len(await runs_of(ada, schedule_id)) == 1
    assert not deaths
    assert await site.dead_letters() == 0


async def test_a_tick_that_comes_again_after_a_change_of_the_run_makes_no_second_run(
    site: Site, ada: httpx.AsyncClient
) -> None:
    schedule_id = await make(ada)
    path = f"/agent/schedules/{schedule_id}"
    key = {"Idempotency-Key": "now"}
    first = (await ada.post(f"{path}/run-now", headers=key)).json()
    await ada.patch(path, json={"run": {"prompt": "another one"}})
    assert (await ada.post(f"{path}/run-now", headers=key)).json() == first
    assert len(await runs_of(ada, schedule_id)) == 1


async def test_a_decision_is_kept_for_a_bounded_time(site: Site, ada: httpx.AsyncClient, redis: RedisTcp) -> None:
    schedule_id = await make(ada)
    await site.fire(schedule_id)
    await site.settled()
    keys = await redis.command("KEYS", "schedule:*:tick:*")
    assert isinstance(keys, list)
    assert [0 < int(str(await redis.command("TTL", str(key)))) <= 3 * 86400 for key in keys] == [True]
