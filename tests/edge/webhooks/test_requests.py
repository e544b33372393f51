"""Webhooks in requests: where they are accepted, refused, inherited; and what they cost."""

from typing import Any

import httpx
import pytest

from infra.commands import cost_counts
from infra.contract.redis_store.webhook_store import WebhookStore
from infra.event_publisher import EventPublisher
from infra.qstash_local.signing import sign
from tests.edge.stack import PLAN, Edge, client, create
from tests.edge.webhooks.conftest import Hooks
from tests.support.command_counts import billed_commands
from tests.support.qstash import CURRENT_KEY, NEXT_KEY
from tests.support.run_store import RunStore

URL = "https://example.org/hook"


async def test_the_webhook_of_a_run_is_shown(hooks: Hooks) -> None:
    made = (await hooks.ada.post("/agent/runs", json={**PLAN, "webhook_url": URL, "webhook_events": ["limit"]})).json()
    assert (made["webhook_url"], made["webhook_events"]) == (URL, ["limit"])
    plain = (await hooks.ada.post("/agent/runs", json=PLAN)).json()
    assert (plain["webhook_url"], plain["webhook_events"]) == (None, None)
    assert (await hooks.ada.get(f"/agent/runs/{plain['run_id']}/webhooks")).json() == {"events": []}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"webhook_url": "http://example.org/"}, "$.webhook_url"),
        ({"webhook_url": "https://10.1.2.3/"}, "$.webhook_url"),
        ({"webhook_url": "https://example.org/" + "x" * 2048}, "$.webhook_url"),
        ({"webhook_url": ""}, "$.webhook_url"),
        ({"webhook_url": URL, "webhook_events": []}, "$.webhook_events"),
        ({"webhook_url": URL, "webhook_events": ["started"]}, "$.webhook_events[0]"),
        ({"webhook_events": ["failed"]}, "$.webhook_events"),
    ],
)
async def test_a_bad_webhook_is_refused_and_named(hooks: Hooks, fields: dict[str, Any], field: str) -> None:
    answer = await hooks.ada.post("/agent/runs", json={**PLAN, **fields})
    assert answer.status_code == 422
    assert answer.json()["field"] == field
    batch = await hooks.ada.post("/agent/runs/batch", json={"runs": [{**PLAN, **fields}, PLAN]})
    assert [("run_id" in str(each)) for each in batch.json()["results"]] == [False, True]
    schedule = {"cron": "0 8 1 * *", "run": {**PLAN, **fields}}
    refused = await hooks.ada.post("/agent/schedules", json=schedule)
    assert (refused.status_code, refused.json()["field"]) == (422, field.replace("$", "$.run"))


async def test_forks_have_the_webhook_of_their_source(hooks: Hooks) -> None:
    run_id = await hooks.create(webhook_events=["finished"])
    await hooks.end()
    fork = await hooks.ada.post(f"/agent/runs/{run_id}/fork", json={"from_step": 0})
    assert fork.status_code == 201, fork.text
    assert (fork.json()["webhook_url"], fork.json()["webhook_events"]) == (hooks.url, ["finished"])


async def test_without_its_settings_the_api_refuses_webhooks_and_names_them(edge: Edge, ada: httpx.AsyncClient) -> None:
    for answer in (
        await ada.post("/agent/runs", json={**PLAN, "webhook_url": URL}),
        await ada.get("/agent/webhooks/secret"),
    ):
        assert answer.status_code == 501
        assert answer.json()["type"].endswith(":webhooks-off")
        assert "QSTASH_TOKEN and EDGE_WEBHOOK_KEY" in answer.json()["detail"]


async def test_the_secret_needs_the_right_to_create_runs(hooks: Hooks) -> None:
    async with client(hooks.edge, "reader") as reader, client(hooks.edge, "bob") as bob:
        assert (await reader.get("/agent/webhooks/secret")).status_code == 403
        assert (await bob.get("/agent/webhooks/secret")).json()["secret"] != hooks.secret


async def test_only_calls_that_qstash_has_signed_are_carried_out(hooks: Hooks) -> None:
    await hooks.create()
    await hooks.end()
    (entry,) = await hooks.entries()
    body = f'{{"event":"{entry}"}}'.encode()
    url = f"{hooks.edge.url}/webhooks/deliver"
    good = sign(CURRENT_KEY, url, body)
    async with httpx.AsyncClient() as http:

        async def status(signature: str, content: bytes = body) -> int:
            headers = {"Upstash-Signature": signature, "Content-Type": "application/json"}
            return (await http.post(url, content=content, headers=headers)).status_code

        assert await status("") == 401
        assert await status(sign("sig_of_somebody_else_0123456789_0123", url, body)) == 401
        assert await status(sign(CURRENT_KEY, f"{hooks.edge.url}/internal/recover", body)) == 401
        assert await status(good, body + b" ") == 401
        assert hooks.receiver.calls == []
        junk = b'{"event":"nonsense"}'
        assert await status(sign(CURRENT_KEY, url, junk), junk) == 400
        assert await status(sign(NEXT_KEY, url, body)) == 200
        assert await status(good) == 200
    assert len(hooks.receiver.calls) == 1


class AcceptingQStash:
    """QStash that keeps what is published. The stand-in would count with its own commands, in the same Redis."""

    def __init__(self) -> None:
        self.bodies: list[str] = []

    async def publish(self, path: str, body: str, deduplication_id: str, sharer: str) -> None:
        self.bodies.append(body)


async def test_an_event_costs_what_the_bill_says(hooks: Hooks) -> None:
    qstash = AcceptingQStash()
    publisher = EventPublisher(WebhookStore(hooks.redis), qstash)
    hooks.worker.store = RunStore(hooks.redis, events=publisher)

    async def counted() -> int:
        return sum((await billed_commands(hooks.redis)).values())

    async def cost(**fields: Any) -> int:
        before = await counted()
        await create(hooks.ada, **fields)
        await hooks.end()
        await publisher.publish_noted()
        return await counted() - before

    await cost()
    # The least of some, because now and then a creation tidies an index, and the stand-in looks at its own state.
    plain = min([await cost() for _ in range(4)])
    hooked = min([await cost(webhook_url=hooks.url) for _ in range(4)])
    url = f"{hooks.edge.url}/webhooks/deliver"
    deliveries = []
    async with httpx.AsyncClient() as http:
        for body in (each.encode() for each in qstash.bodies):
            before = await counted()
            headers = {"Upstash-Signature": sign(CURRENT_KEY, url, body)}
            assert (await http.post(url, content=body, headers=headers)).status_code == 200
            deliveries.append(await counted() - before)
    # The first delivery also sends its scripts to a server that has not seen them yet.
    assert hooked - plain + min(deliveries) == cost_counts.WEBHOOK  # from which `swissbrain cost` computes the bill
