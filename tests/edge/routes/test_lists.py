"""Lists of runs and pages of logs."""

from typing import Any

import httpx
from msgspec import json

from infra.contract.states import Status
from tests.edge.stack import PLAN, SimulatedWorker, create, follow, note


async def pages(http: httpx.AsyncClient, **query: Any) -> list[list[str]]:
    """Return the run ids of all pages."""
    found: list[list[str]] = []
    cursor: str | None = None
    while True:
        params = {**query, "cursor": cursor} if cursor else query
        page = (await http.get("/agent/runs", params=params)).json()
        found.append([run["run_id"] for run in page["runs"]])
        cursor = page["next_cursor"]
        if cursor is None:
            return found


async def test_runs_are_listed_newest_first_and_once_each(ada: httpx.AsyncClient) -> None:
    ids = [await create(ada, start=False) for _ in range(7)]
    found = await pages(ada, limit=3)
    assert [len(page) for page in found][:2] == [3, 3]
    times = {run["run_id"]: run["created_ms"] for run in (await ada.get("/agent/runs")).json()["runs"]}
    flat = [run_id for page in found for run_id in page]
    assert flat == sorted(ids, key=lambda run_id: (times[run_id], run_id), reverse=True)


async def test_runs_of_the_same_millisecond_are_paged_without_loss(
    ada: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    ids = [await create(ada, start=False) for _ in range(8)]
    for run_id in ids:
        await worker.redis.command("ZADD", "user:ada:runs", 1_700_000_000_000, run_id)
    for limit in (1, 3, 8, 100):
        flat = [run_id for page in await pages(ada, limit=limit) for run_id in page]
        assert flat == sorted(ids, reverse=True)


async def test_a_list_can_be_filtered_by_status(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    ids = [await create(ada) for _ in range(4)]
    await worker.complete()
    await worker.complete(status=Status.FAILED)
    assert [run for page in await pages(ada, status="queued", limit=1) for run in page] == ids[:1:-1]
    assert [run for page in await pages(ada, status="failed") for run in page] == [ids[1]]
    assert await pages(ada, status="waiting") == [[]]


async def test_a_list_leaves_out_plans_and_results(ada: httpx.AsyncClient) -> None:
    await create(ada, prompt=f"  first line {'x' * 200}\nsecond line", metadata={"a": "b"})
    await create(ada, plan=[*PLAN["plan"], {**PLAN["plan"][0], "name": "greet"}])
    by_plan, by_prompt = (await ada.get("/agent/runs")).json()["runs"]
    assert by_prompt["title"] == f"first line {'x' * 108}…"
    assert by_prompt["metadata"] == {"a": "b"}
    assert (by_plan["title"], by_plan["steps"]) == ("message, greet", 2)
    assert not {"plan", "result", "prompt"} & by_plan.keys()


async def test_a_log_is_read_in_pages(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    run_id = await create(ada)
    url = f"/agent/logs/{run_id}"
    empty = (await ada.get(url)).json()
    assert empty == {"events": [], "last_seq": 0, "next_after": 0, "done": False}
    lease = await worker.claim()
    for number in range(4):
        await worker.emit(lease, note(number), note(number))
    page = (await ada.get(url, params={"limit": 4})).json()
    assert [event["seq"] for event in page["events"]] == [1, 2, 3, 4]
    assert (page["last_seq"], page["next_after"], page["done"]) == (9, 4, False)
    await worker.finish(lease)
    events, after, done = page["events"], page["next_after"], False
    while not done:
        page = (await ada.get(url, params={"after": after, "limit": 4})).json()
        events += page["events"]
        after, done = page["next_after"], page["done"]
    assert [event["seq"] for event in events] == list(range(1, 11))
    streamed = [json.decode(event.data) for event in await follow(ada, run_id) if event.event == "message"]
    assert streamed == events


async def test_a_page_reports_missing_events_as_a_gap(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    run_id = await create(ada)
    await worker.complete(events=4)
    await worker.redis.command("XTRIM", f"run:{run_id}:log", "MINID", "4-0")
    page = (await ada.get(f"/agent/logs/{run_id}")).json()
    assert page["gap"] == {"first": 1, "last": 3}
    assert [event["seq"] for event in page["events"]] == [4, 5, 6]
    assert page["done"] is True
    await worker.redis.command("DEL", f"run:{run_id}:log")
    page = (await ada.get(f"/agent/logs/{run_id}?after=4")).json()
    assert page == {"events": [], "last_seq": 6, "next_after": 6, "done": True, "gap": {"first": 5, "last": 6}}


async def test_a_damaged_record_is_named_beside_the_runs_that_can_be_read(
    ada: httpx.AsyncClient, bob: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    first, damaged, last = [await create(ada, start=False) for _ in range(3)]
    await worker.redis.command("HSET", f"run:{damaged}", "status", "of a newer release")

    listed = (await ada.get("/agent/runs")).json()
    shown = await ada.get(f"/agent/runs/{damaged}")

    assert {run["run_id"] for run in listed["runs"]} == {first, last}
    assert listed["unreadable"] == [damaged]
    assert (shown.status_code, shown.json()["type"]) == (500, "urn:swissbrain:problem:record-unreadable")
    assert damaged in shown.json()["detail"]
    assert (await bob.get(f"/agent/runs/{damaged}")).status_code == 404
    assert "unreadable" not in (await bob.get("/agent/runs")).json()
