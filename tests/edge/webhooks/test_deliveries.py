"""Webhooks: each event of a run has one accepted delivery, whatever happens to the messages in between."""

import asyncio
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook
from starlette.responses import Response

from edge_api.webhooks_service import PATIENT_POSTS
from infra.contract.runs import RunError
from infra.contract.states import Status
from infra.qstash import PARALLEL
from infra.webhook_http import user_secret
from tests.edge.stack import create
from tests.edge.webhooks import conftest
from tests.edge.webhooks.conftest import KEYS, OUTBOX, USERS, Hooks
from tests.support.qstash import Received
from tests.support.waiting import until


async def test_the_end_of_a_run_is_posted_and_signed_for_its_user(hooks: Hooks) -> None:
    run_id = await hooks.create(metadata={"order": "17"})
    await hooks.end()
    await hooks.publisher.publish_noted()

    (call,) = await hooks.receiver.wait_for(1)

    (body,) = hooks.bodies()
    run = (await hooks.ada.get(f"/agent/runs/{run_id}")).json()
    assert body["type"] == "run.finished"
    assert body["data"] == {
        "run_id": run_id,
        "status": "succeeded",
        "error_code": None,
        "metadata": {"order": "17"},
        "created_ms": run["created_ms"],
        "started_ms": run["started_ms"],
        "at_ms": run["finished_ms"],
    }
    assert body["timestamp"].endswith("Z")
    assert call.url.endswith("/hook?token=t")
    assert call.headers["host"].startswith("receiver.test:")
    shown = await hooks.state(run_id, "delivered")
    assert shown["event_id"] == call.headers["webhook-id"]
    assert (shown["attempts"], shown["last_attempts"][0]["status"]) == (1, 200)
    # During a change of keys the receiver verifies with the secret of either.
    Webhook(user_secret(KEYS[1], "ada")).verify(call.body, call.headers)
    with pytest.raises(Exception, match="No matching signature"):
        Webhook(user_secret(KEYS[0], "bob")).verify(call.body, call.headers)
    assert (await hooks.ada.get("/agent/webhooks/secret")).json() == {"secret": hooks.secret}
    await hooks.settled()


@pytest.mark.parametrize(
    ("events", "status", "code", "expected"),
    [
        (None, Status.FAILED, "timeout", "run.failed"),
        (None, Status.FAILED, "limit_turns", "run.failed"),
        (["limit", "failed"], Status.FAILED, "limit_cost", "run.limit"),
        (["limit"], Status.FAILED, "limit_cost", "run.limit"),
        (["limit"], Status.FAILED, "timeout", None),
        (["failed", "waiting"], Status.SUCCEEDED, None, None),
        (["finished"], Status.CANCELLED, None, "run.finished"),
    ],
)
async def test_only_the_wanted_events_are_posted(
    hooks: Hooks, events: list[str] | None, status: Status, code: str | None, expected: str | None
) -> None:
    run_id = await hooks.create(**({"webhook_events": events} if events else {}))
    await hooks.end(status, RunError(code=code, message="m") if code else None)
    await hooks.publisher.publish_noted()
    await hooks.settled()

    posted = hooks.bodies()

    assert [body["type"] for body in posted] == ([expected] if expected else [])
    assert [body["data"]["error_code"] for body in posted] == ([code] if expected else [])
    assert len(await hooks.deliveries(run_id)) == len(posted)


async def test_a_run_that_waits_and_ends_later_is_posted_twice(hooks: Hooks) -> None:
    run_id = await hooks.create()
    await hooks.worker.wait(await hooks.worker.claim())
    await hooks.publisher.publish_noted()
    await hooks.receiver.wait_for(1)
    answer = await hooks.ada.post(f"/agent/runs/{run_id}/resume", json={"user_input": "a"})
    assert answer.status_code == 200, answer.text
    await hooks.end()
    await hooks.publisher.publish_noted()
    await hooks.receiver.wait_for(2)

    assert [(body["type"], body["data"]["status"]) for body in hooks.bodies()] == [
        ("run.waiting", "waiting"),
        ("run.finished", "succeeded"),
    ]
    assert len({call.headers["webhook-id"] for call in hooks.receiver.calls}) == 2


async def test_the_api_posts_the_cancel_of_a_queued_run_itself(hooks: Hooks) -> None:
    run_id = await hooks.create()
    assert (await hooks.ada.post(f"/agent/runs/{run_id}/cancel")).status_code in {200, 202}
    await hooks.receiver.wait_for(1)
    assert hooks.bodies()[0]["data"]["status"] == "cancelled"
    await hooks.settled()


async def _lose(hooks: Hooks, **_: Any) -> None:
    """Let the only attempt of the run be lost."""
    lease = await hooks.worker.claim()
    await hooks.redis.command("ZADD", "jobs:leases", 1, lease.run_id)


async def _expire_in_queue(hooks: Hooks) -> None:
    await asyncio.sleep(0.02)


async def _expire_request(hooks: Hooks) -> None:
    lease = await hooks.worker.claim()
    await hooks.worker.wait(lease)
    text = str(await hooks.redis.command("HGET", f"run:{lease.run_id}", "requests"))
    past = text.replace('expires_ms\\":', 'expires_ms\\":1,\\"was\\":')
    await hooks.redis.command("HSET", f"run:{lease.run_id}", "requests", past)
    await hooks.redis.command("ZADD", "jobs:waiting", 1, lease.run_id)
    await hooks.redis.command("ZADD", "jobs:delayed", 1, "*expiries")


@pytest.mark.parametrize(
    ("fields", "how", "code"),
    [
        ({"max_attempts": 1}, _lose, "worker_lost"),
        ({"queue_ttl_s": 0.01}, _expire_in_queue, "expired"),
        ({"webhook_events": ["failed"]}, _expire_request, "question_expired"),
    ],
)
async def test_the_end_by_the_claim_of_another_worker_is_posted(
    hooks: Hooks, fields: dict[str, Any], how: Any, code: str
) -> None:
    await hooks.create(**fields)
    await how(hooks)

    await hooks.worker.store.claim("another", 1, lease_ms=60_000)
    # The claim has reported that an entry is due, which wakes the publisher of its worker.
    publishing = asyncio.create_task(hooks.publisher.publish_forever())
    await hooks.receiver.wait_for(1)
    publishing.cancel()

    assert hooks.bodies()[0]["data"]["error_code"] == code
    await hooks.settled()


async def test_the_recovery_tick_posts_what_nobody_has_published(hooks: Hooks) -> None:
    run_id = await hooks.create(max_attempts=1)
    await _lose(hooks)
    orphan = await hooks.create()
    await hooks.end()  # and its worker dies before it publishes the event
    await hooks.overdue()

    await hooks.qstash.publish("/internal/recover", "", "tick", "ada")
    await hooks.receiver.wait_for(2)

    assert {body["data"]["run_id"] for body in hooks.bodies()} == {run_id, orphan}
    await hooks.settled()


async def test_an_event_whose_worker_dies_is_published_by_the_claim_of_another(hooks: Hooks) -> None:
    await hooks.create()
    await hooks.end()
    assert len(await hooks.entries()) == 1
    reply = await hooks.worker.store.claim("another", 1, lease_ms=60_000)
    assert reply.next_ms is not None
    assert 0 < reply.next_ms <= 10_000  # the alarm of the other worker rings when the event is overdue
    await hooks.overdue()
    await hooks.worker.store.claim("another", 1, lease_ms=60_000)
    publishing = asyncio.create_task(hooks.publisher.publish_forever())
    await hooks.receiver.wait_for(1)
    publishing.cancel()
    await hooks.settled()
    assert len(hooks.receiver.calls) == 1


@pytest.mark.parametrize("fault", ["duplicate", "lost", "late", "forged", "unsigned", "refused"])
async def test_a_nasty_network_of_qstash_changes_nothing(hooks: Hooks, fault: str) -> None:
    hooks.network.next_faults = [fault]
    run_id = await hooks.create()
    await hooks.end()
    await hooks.publisher.publish_noted()
    await hooks.state(run_id, "delivered")
    await hooks.settled()

    assert len(hooks.receiver.calls) == 1
    assert not [status for kind, status in hooks.network.answers if kind in {"forged", "unsigned"} and status != 401]


@pytest.mark.parametrize("fault", ["before", "after"])
async def test_a_failing_qstash_delays_an_event_and_duplicates_none(hooks: Hooks, fault: str) -> None:
    hooks.qstash.next_faults = [fault]
    run_id = await hooks.create()
    await hooks.end()
    assert not await hooks.publisher.publish_noted()
    assert len(await hooks.entries()) == 1
    await hooks.overdue()
    assert await hooks.publisher.publish_overdue() == (1, True)
    await hooks.state(run_id, "delivered")
    await hooks.settled()
    assert len(hooks.receiver.calls) == 1


async def test_a_failing_receiver_gets_the_event_again_until_it_accepts(hooks: Hooks) -> None:
    statuses = [500, 503, 200]
    hooks.receiver.answer = lambda _call: Response("x", statuses.pop(0))
    run_id = await hooks.create()
    await hooks.end()
    await hooks.publisher.publish_noted()

    shown = await hooks.state(run_id, "delivered")

    assert [each["status"] for each in shown["last_attempts"]] == [500, 503, 200]
    assert len({call.headers["webhook-id"] for call in hooks.receiver.calls}) == 1
    hooks.bodies()


async def test_a_receiver_that_is_gone_is_not_called_again_until_its_user_asks(hooks: Hooks) -> None:
    hooks.receiver.answer = lambda _call: Response(status_code=410)
    run_id = await hooks.create()
    await hooks.end()
    await hooks.publisher.publish_noted()
    shown = await hooks.state(run_id, "failed")
    await hooks.settled()
    assert len(hooks.receiver.calls) == 1
    assert await hooks.redis.command("ZCARD", "{qstash}:dead") == 1

    hooks.receiver.answer = lambda _call: Response()
    path = f"/agent/runs/{run_id}/webhooks/{shown['event_id']}/resend"
    again = [await hooks.ada.post(path, headers={"Idempotency-Key": "k"}) for _ in range(2)]

    assert [(each.status_code, each.json()) for each in again] == [(202, {"event_id": shown["event_id"]})] * 2
    await hooks.state(run_id, "delivered")
    await hooks.settled()
    assert len(hooks.receiver.calls) == 2
    assert hooks.receiver.calls[0].headers["webhook-id"] == hooks.receiver.calls[1].headers["webhook-id"]


async def test_a_delivered_event_is_sent_again_on_request_and_an_old_message_is_not(hooks: Hooks) -> None:
    run_id = await hooks.create()
    await hooks.end()
    old = (await hooks.entries())[0]
    await hooks.publisher.publish_noted()
    shown = await hooks.state(run_id, "delivered")
    path = f"/agent/runs/{run_id}/webhooks/{shown['event_id']}/resend"
    assert (await hooks.ada.post(path)).status_code == 202
    await hooks.receiver.wait_for(2)
    await hooks.qstash.publish("/webhooks/deliver", f'{{"event":"{old}"}}', "an-old-message", "ada")
    await hooks.settled()
    assert len(hooks.receiver.calls) == 2


async def test_a_deleted_run_is_not_posted(hooks: Hooks) -> None:
    run_id = await hooks.create()
    await hooks.end()
    assert (await hooks.ada.delete(f"/agent/runs/{run_id}")).status_code == 204
    await hooks.publisher.publish_noted()
    await hooks.settled()
    assert hooks.receiver.calls == []


async def test_two_calls_at_a_time_post_the_event_once(hooks: Hooks) -> None:
    begun = asyncio.Event()

    async def slow(_call: Received) -> Response:
        begun.set()
        await asyncio.sleep(0.1)
        return Response()

    hooks.receiver.answer = slow
    run_id = await hooks.create()
    await hooks.end()
    (entry,) = await hooks.entries()
    await hooks.publisher.publish_noted()
    await begun.wait()
    await hooks.qstash.publish("/webhooks/deliver", f'{{"event":"{entry}"}}', "another-message", "ada")
    await hooks.state(run_id, "delivered")
    await hooks.settled()
    assert len(hooks.receiver.calls) == 1


async def test_the_outbox_is_bounded_for_each_user_and_a_full_one_stops_no_run(hooks: Hooks) -> None:
    run_id = await hooks.create()
    await hooks.redis.command("HSET", USERS, "ada", 1000)
    await hooks.end()
    assert await hooks.entries() == []
    (shown,) = await hooks.deliveries(run_id)
    assert shown["state"] == "dropped"
    assert await hooks.redis.command("HGET", USERS, "ada") == "1000"
    await hooks.redis.command("DEL", USERS)
    assert (await hooks.ada.post(f"/agent/runs/{run_id}/webhooks/{shown['event_id']}/resend")).status_code == 202
    await hooks.state(run_id, "delivered")
    await hooks.settled()


async def test_a_damaged_entry_does_not_stop_the_others(hooks: Hooks) -> None:
    await hooks.redis.command("ZADD", OUTBOX, 1, "nonsense")
    await hooks.create()
    await hooks.end()
    await hooks.overdue()
    assert await hooks.publisher.publish_overdue() == (2, True)
    await hooks.receiver.wait_for(1)
    await hooks.settled()


async def test_a_damaged_outbox_stops_no_run(hooks: Hooks) -> None:
    await hooks.redis.command("SET", OUTBOX, "nonsense")
    run_id = await hooks.create()
    await hooks.end()
    assert (await hooks.deliveries(run_id))[0]["state"] == "dropped"
    await hooks.redis.command("DEL", OUTBOX, USERS)


async def test_a_run_keeps_its_last_events_alone(hooks: Hooks) -> None:
    run_id = await hooks.create(webhook_events=["failed"])
    for _ in range(23):
        await hooks.end(Status.FAILED, RunError(code="c", message="m"))
        assert (await hooks.ada.post(f"/agent/runs/{run_id}/retry", json={})).status_code in {200, 202}
    assert len(await hooks.deliveries(run_id)) == 20
    names = await hooks.redis.command("HKEYS", f"run:{run_id}")
    assert isinstance(names, list)
    assert len([name for name in names if str(name).startswith("hook:")]) == 20


async def test_others_see_and_send_nothing(hooks: Hooks, bob: httpx.AsyncClient) -> None:
    run_id = await hooks.create()
    await hooks.end()
    (shown,) = await hooks.deliveries(run_id)
    path = f"/agent/runs/{run_id}/webhooks"
    assert (await bob.get(path)).status_code == 404
    assert (await bob.post(f"{path}/{shown['event_id']}/resend")).status_code == 404
    other = await create(hooks.ada)
    for event_id in (shown["event_id"], "nonsense", f"{other}-1-1", f"{other}-x-y"):
        answer = await hooks.ada.post(f"/agent/runs/{other}/webhooks/{event_id}/resend")
        assert answer.status_code == 404


async def test_receivers_that_do_not_answer_do_not_hold_the_deliveries_of_others(
    hooks: Hooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.webhook_http.HURRIED_S", 0.05)
    monkeypatch.setattr(conftest, "DEADLINE_S", 1.0)
    assert PARALLEL > PATIENT_POSTS, "else none would have to hurry"

    async def silent(_call: Received) -> Response:
        await asyncio.sleep(5)
        return Response()

    hooks.receiver.answer = silent
    runs = [await hooks.create() for _ in range(6)]
    for _ in runs:
        await hooks.end()
    await hooks.publisher.publish_noted()
    await hooks.receiver.wait_for(6)
    errors: list[str] = []

    async def attempted() -> bool:
        attempts = [(await hooks.deliveries(run))[0]["last_attempts"] for run in runs]
        errors[:] = [each[0]["error"] for each in attempts if each]
        return len(errors) == len(runs)

    await until(attempted, "each event was attempted")
    hooks.receiver.answer = lambda _call: Response()
    # The stand-in makes several calls at a time: at least two of them had to hurry.
    assert errors.count("no answer within 0.05 s") >= 2
    assert errors.count("no answer within 1 s") >= 1
