"""Schedules over HTTP: created, shown, changed, deleted, with QStash told about each change."""

import asyncio
import time
from typing import Any

import httpx
import pytest

from edge_api.http.schedule_models import ChangeSchedule
from edge_api.schedules_service import ScheduleService, Scheduling
from infra.contract.redis_store.schedule_store import ScheduleStore
from infra.contract.schedules import MAX_SCHEDULES
from infra.redis_tcp import RedisTcp
from tests.edge.schedules.conftest import MONTHLY, Site, make, runs_of
from tests.edge.stack import PLAN, Edge, SimulatedWorker, client
from tests.support.qstash import sdk

UNCONFIRMED = "schedules:unconfirmed"
ZURICH = "CRON_TZ=Europe/Zurich 0 8 1 * *"


async def test_a_schedule_is_shown_and_known_to_qstash(site: Site, ada: httpx.AsyncClient) -> None:
    before = int(time.time() * 1000)

    made = await ada.post("/agent/schedules", json=MONTHLY)

    assert made.status_code == 201
    shown = made.json()
    schedule_id = shown["schedule_id"]
    assert made.headers["location"] == f"/agent/schedules/{schedule_id}"
    assert shown["next_ms"] == sorted(shown["next_ms"])
    assert len(shown["next_ms"]) == 5
    assert shown["next_ms"][0] > before
    assert {name: shown[name] for name in ("cron", "timezone", "overlap", "paused", "pending", "last", "title")} == {
        "cron": "0 8 1 * *",
        "timezone": "Europe/Zurich",
        "overlap": "skip",
        "paused": False,
        "pending": False,
        "last": None,
        "title": "message",
    }
    assert shown["run"]["plan"] == PLAN["plan"]
    assert (await ada.get(f"/agent/schedules/{schedule_id}")).json()["next_ms"][:1] == shown["next_ms"][:1]
    (listed,) = (await ada.get("/agent/schedules")).json()["schedules"]
    assert listed["schedule_id"] == schedule_id
    assert "run" not in listed
    async with sdk(site.stand_in_url) as qstash:
        known = await qstash.schedule.get(schedule_id)
    assert (known.cron, known.destination) == (ZURICH, f"{site.edge.url}/internal/schedule-tick")
    assert known.next_schedule_time == shown["next_ms"][0]
    assert await site.redis.command("ZCARD", UNCONFIRMED) == 0


@pytest.mark.parametrize("cron", ["0 8 1 * *\n", "  0 8\t1 * *", "0\r\n8\u30001 *\u2028*"])
async def test_any_white_space_may_be_between_the_fields(site: Site, ada: httpx.AsyncClient, cron: str) -> None:
    made = await ada.post("/agent/schedules", json={**MONTHLY, "cron": cron})
    assert made.status_code == 201
    async with sdk(site.stand_in_url) as qstash:
        assert (await qstash.schedule.get(made.json()["schedule_id"])).cron == ZURICH


async def test_changes_reach_qstash(site: Site, ada: httpx.AsyncClient) -> None:
    schedule_id = await make(ada)
    path = f"/agent/schedules/{schedule_id}"

    changed = await ada.patch(path, json={"cron": "*/5 * * * *", "overlap": "cancel", "run": {"prompt": "again"}})

    assert changed.status_code == 200, changed.text
    assert {name: changed.json()[name] for name in ("cron", "timezone", "overlap", "title")} == {
        "cron": "*/5 * * * *",
        "timezone": "Europe/Zurich",
        "overlap": "cancel",
        "title": "again",
    }
    assert await site.known() == {schedule_id: "CRON_TZ=Europe/Zurich */5 * * * *"}
    paused = (await ada.patch(path, json={"paused": True})).json()
    assert (paused["paused"], paused["next_ms"]) == (True, [])
    assert await site.known() == {}
    assert not (await ada.patch(path, json={"paused": False})).json()["paused"]
    assert [*await site.known()] == [schedule_id]
    assert (await ada.delete(path)).status_code == 204
    assert await site.known() == {}
    for answer in (await ada.get(path), await ada.delete(path), await ada.patch(path, json={"paused": True})):
        assert answer.status_code == 404
        assert answer.json()["type"].endswith("schedule-not-found")
    assert await site.redis.command("KEYS", "*schedule*") == []


async def test_a_schedule_belongs_to_its_user(site: Site, ada: httpx.AsyncClient, bob: httpx.AsyncClient) -> None:
    path = f"/agent/schedules/{await make(ada)}"
    assert (await bob.get("/agent/schedules")).json() == {"schedules": []}
    assert (await bob.get(path)).status_code == 404
    assert (await bob.patch(path, json={"paused": True})).status_code == 404
    assert (await bob.delete(path)).status_code == 404
    assert (await bob.post(f"{path}/run-now")).status_code == 404
    async with client(site.edge, "reader") as reader, client(site.edge, "writer") as writer:
        assert (await reader.post("/agent/schedules", json=MONTHLY)).status_code == 403
        assert (await writer.get("/agent/schedules")).status_code == 403
    assert len(await site.known()) == 1


async def test_a_token_that_may_not_read_reads_no_run_by_changing_its_schedule(site: Site) -> None:
    async with client(site.edge, "writer") as writer:
        path = f"/agent/schedules/{await make(writer)}"
        await writer.post(f"{path}/run-now")
        for changes, title in (({}, ""), ({"paused": True}, ""), ({"run": PLAN}, "message")):
            shown = (await writer.patch(path, json=changes)).json()
            assert (shown["title"], shown["run"] is None, shown["last"]) == (title, not title, None)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"cron": "every day"}, "$.cron"),
        ({"cron": "0 0 30 2 *"}, "$.cron"),
        ({"timezone": "Mars/Olympus"}, "$.timezone"),
        ({"timezone": "../../etc/passwd"}, "$.timezone"),
        ({"overlap": "maybe"}, "$.overlap"),
        ({"run": {}}, "$.run"),
        ({"run": {"plan": [{"tool": "nonsense"}]}}, "$.run.plan[0].tool"),
        ({"run": {"prompt": "x", "start_at_ms": 5}}, "$.run.start_at_ms"),
        ({"run": {"prompt": "x", "continue_of": "run_1"}}, "$.run.continue_of"),
        ({"run": {"prompt": "x", "metadata": {"schedule": "x"}}}, "$.run.metadata"),
        ({"run": {"prompt": "x", "start": True}}, "$.run.start"),
        ({"run": {"plan": [{"tool": "message", "args": {"text": "x" * 9_000}}] * 30}}, "$.run"),
        ({"when": "now"}, "$.when"),
    ],
)
async def test_what_cannot_work_is_refused(
    site: Site, ada: httpx.AsyncClient, changes: dict[str, Any], field: str
) -> None:
    answer = await ada.post("/agent/schedules", json={**MONTHLY, **changes})
    assert answer.status_code == 422, answer.text
    assert answer.json()["field"] == field
    assert await site.known() == {}


async def test_a_repeated_request_makes_one_schedule(site: Site, ada: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": "daily"}
    first = await ada.post("/agent/schedules", json=MONTHLY, headers=key)
    second = await ada.post("/agent/schedules", json=MONTHLY, headers=key)
    other = await ada.post("/agent/schedules", json={**MONTHLY, "cron": "0 9 * * *"}, headers=key)
    assert (first.status_code, second.status_code, other.status_code) == (201, 200, 409)
    assert second.json()["schedule_id"] == first.json()["schedule_id"]
    assert len(await site.known()) == 1


async def test_a_user_has_a_bounded_number(site: Site, ada: httpx.AsyncClient, bob: httpx.AsyncClient) -> None:
    await site.redis.pipeline([["ZADD", "user:ada:schedules", 1, f"x{number}"] for number in range(MAX_SCHEDULES)])
    answer = await ada.post("/agent/schedules", json=MONTHLY)
    assert answer.status_code == 422
    assert answer.json()["type"].endswith("limit-exceeded")
    await make(bob)


@pytest.mark.parametrize("fault", ["before", "after"])
async def test_a_request_that_failed_is_completed_by_its_repetition(
    site: Site, ada: httpx.AsyncClient, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    site.qstash.next_faults.append(fault)
    key = {"Idempotency-Key": "k"}

    failed = await ada.post("/agent/schedules", json=MONTHLY, headers=key)

    assert failed.status_code == 503
    assert failed.json()["type"].endswith("qstash-unavailable")
    (listed,) = (await ada.get("/agent/schedules")).json()["schedules"]
    assert listed["pending"]
    assert "schedule.unconfirmed" in caplog.messages, "the reason may be a setting"
    assert (await ada.post("/agent/schedules", json=MONTHLY, headers=key)).json()["pending"] is False
    assert [*await site.known()] == [listed["schedule_id"]]


@pytest.mark.parametrize("fault", ["before", "after"])
async def test_a_request_that_failed_is_completed_by_the_recovery_tick(
    site: Site, ada: httpx.AsyncClient, redis: RedisTcp, fault: str
) -> None:
    kept, deleted = await make(ada), await make(ada)
    site.qstash.next_faults += [fault] * 3
    assert (await ada.post("/agent/schedules", json=MONTHLY)).status_code == 503
    assert (await ada.patch(f"/agent/schedules/{kept}", json={"cron": "1 1 1 1 *"})).status_code == 503
    assert (await ada.delete(f"/agent/schedules/{deleted}")).status_code == 503
    service = _service(site, redis)
    now_ms = int(time.time() * 1000)
    assert await service.repair(now_ms) == 0, "the requests may still be under way"

    assert await service.repair(now_ms + 61_000) == 3

    assert await redis.command("ZCARD", UNCONFIRMED) == 0
    listed = {each["schedule_id"]: each for each in (await ada.get("/agent/schedules")).json()["schedules"]}
    assert len(listed) == 2
    assert listed[kept]["cron"] == "1 1 1 1 *"
    assert not any(each["pending"] for each in listed.values())
    assert await site.known() == {
        each["schedule_id"]: f"CRON_TZ=Europe/Zurich {each['cron']}" for each in listed.values()
    }


async def test_changes_while_qstash_is_down_fill_nothing(site: Site, ada: httpx.AsyncClient) -> None:
    path = f"/agent/schedules/{await make(ada)}"
    site.qstash.next_faults += ["before"] * 15
    for _ in range(15):
        assert (await ada.patch(path, json={"paused": True})).status_code == 503
    assert await site.redis.command("ZCARD", UNCONFIRMED) == 10


async def test_of_two_changes_at_a_time_the_later_one_reaches_qstash(
    site: Site, ada: httpx.AsyncClient, redis: RedisTcp
) -> None:
    """The first request has read its change, and tells QStash about it only after the second one has."""
    schedule_id = await make(ada)
    reached, go_on = asyncio.Event(), asyncio.Event()

    class Slow(ScheduleStore):
        async def get(self, schedule_id: str) -> Any:
            record = await super().get(schedule_id)
            if record.cron == "1 1 * * *" and not reached.is_set():
                reached.set()
                await go_on.wait()
            return record

    service = _service(site, redis, Slow(redis))
    first = asyncio.create_task(service.change("ada", schedule_id, ChangeSchedule(cron="1 1 * * *")))
    await reached.wait()
    assert (await ada.patch(f"/agent/schedules/{schedule_id}", json={"cron": "2 2 * * *"})).status_code == 200
    go_on.set()

    await first

    assert await site.known() == {schedule_id: "CRON_TZ=Europe/Zurich 2 2 * * *"}
    assert await redis.command("ZCARD", UNCONFIRMED) == 0


async def test_without_qstash_there_are_no_schedules(running_edge: Edge) -> None:
    async with client(running_edge, "ada") as http:
        answers = [
            await http.post("/agent/schedules", json=MONTHLY),
            await http.get("/agent/schedules"),
            await http.post("/internal/recover"),
        ]
    for answer in answers:
        assert answer.status_code == 501
        assert answer.json()["type"].endswith("schedules-off")


async def test_a_start_by_hand_follows_the_overlap_policy(
    site: Site, ada: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    schedule_id = await make(ada, paused=True)
    path = f"/agent/schedules/{schedule_id}/run-now"
    key = {"Idempotency-Key": "now"}

    first = (await ada.post(path, headers=key)).json()

    assert first["outcome"] == "started"
    assert (await ada.post(path, headers=key)).json() == first
    assert (await ada.post(path)).json() == {"outcome": "skipped", "run_id": first["run_id"]}
    await worker.complete()
    again = (await ada.post(path)).json()
    assert again["outcome"] == "started"
    assert [run["run_id"] for run in await runs_of(ada, schedule_id)] == [again["run_id"], first["run_id"]]
    last = (await ada.get(f"/agent/schedules/{schedule_id}")).json()["last"]
    assert (last["outcome"], last["run_id"]) == ("started", again["run_id"])


def _service(site: Site, redis: RedisTcp, store: ScheduleStore | None = None) -> ScheduleService:
    runs: Any = None  # no run is created
    return ScheduleService(runs, Scheduling(store or ScheduleStore(redis), site.qstash))


async def test_a_damaged_schedule_is_named_beside_those_that_can_be_read(site: Site, ada: httpx.AsyncClient) -> None:
    ids = [await make(ada) for _ in range(4)]
    await site.redis.command("HSET", f"schedule:{ids[1]}", "overlap", "of a newer release")
    await site.redis.command("HDEL", f"schedule:{ids[2]}", "id")

    listed = (await ada.get("/agent/schedules")).json()
    assert [each["schedule_id"] for each in listed["schedules"]] == [ids[0], ids[3]]
    assert listed["unreadable"] == ids[1:3]

    await site.redis.command("DEL", f"schedule:{ids[1]}")
    await site.redis.command("SET", f"schedule:{ids[1]}", "garbage")
    listed = (await ada.get("/agent/schedules")).json()
    assert [each["schedule_id"] for each in listed["schedules"]] == [ids[0], ids[3]]
    assert (await ada.get(f"/agent/schedules/{ids[1]}")).json()["type"].endswith("record-unreadable")


async def test_a_schedule_whose_zone_this_host_does_not_know_is_shown_without_its_next_times(
    site: Site, ada: httpx.AsyncClient
) -> None:
    """Another host, with newer time zones, has created it."""
    known, unknown = await make(ada), await make(ada)
    await site.redis.command("HSET", f"schedule:{unknown}", "timezone", "America/Atlantis")
    listed = {each["schedule_id"]: each for each in (await ada.get("/agent/schedules")).json()["schedules"]}
    assert (len(listed[known]["next_ms"]), listed[unknown]["next_ms"]) == (5, [])
    assert (await ada.get(f"/agent/schedules/{unknown}")).json()["timezone"] == "America/Atlantis"
