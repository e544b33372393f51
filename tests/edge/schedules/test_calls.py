"""Calls of QStash: their signatures, and what the recovery tick does while there are no workers."""

import time
from typing import Any

import httpx
import jwt
import pytest
from msgspec import json

from infra.commands import cost_counts
from infra.qstash_local.signing import sign
from infra.redis_tcp import RedisTcp
from tests.edge.schedules.conftest import Site, make
from tests.edge.stack import SimulatedWorker, create
from tests.support.command_counts import billed_commands, settled_commands
from tests.support.qstash import CURRENT_KEY, NEXT_KEY
from tests.support.requests import question
from tests.support.waiting import until

PATH = "/internal/recover"


def changed(signature: str, **claims: Any) -> str:
    """Return the token with other claims; None removes one."""
    held = {**jwt.decode(signature, options={"verify_signature": False}), **claims}
    return jwt.encode({name: value for name, value in held.items() if value is not None}, CURRENT_KEY, "HS256")


async def call(site: Site, signature: str, body: bytes = b"") -> int:
    async with httpx.AsyncClient(base_url=site.edge.url) as http:
        return (await http.post(PATH, content=body, headers={"Upstash-Signature": signature})).status_code


async def test_both_keys_are_accepted(site: Site) -> None:
    for key in (CURRENT_KEY, NEXT_KEY):
        assert await call(site, sign(key, f"{site.edge.url}{PATH}", b"")) == 200
        assert await call(site, sign(key, f"{site.edge.url}{PATH}", b"{}"), b"{}") == 200


async def test_every_other_signature_is_rejected(site: Site) -> None:
    url, now = f"{site.edge.url}{PATH}", int(time.time())
    good = sign(CURRENT_KEY, url, b"")
    unsigned = jwt.encode(jwt.decode(good, options={"verify_signature": False}), "", "none")
    rejected = [
        "",
        "nonsense",
        unsigned,
        sign("x" * 40, url, b""),
        sign(CURRENT_KEY, f"{url}/", b""),
        sign(CURRENT_KEY, f"{site.edge.url}/internal/schedule-tick", b""),
        sign(CURRENT_KEY, url.replace("127.0.0.1", "localhost"), b""),
        sign(CURRENT_KEY, url, b"another body"),
        changed(good, iss="Somebody"),
        changed(good, exp=now - 31),
        changed(good, nbf=now + 600, exp=now + 900),
        changed(good, iat=now + 600, exp=now + 900),
        # Signed long ago for a long time: a call that was recorded must not be repeated much later.
        changed(good, iat=now - 340, nbf=now - 340, exp=now + 3600),
        changed(good, exp="never"),
        *(changed(good, **{name: None}) for name in ("iss", "sub", "exp", "nbf", "iat", "body")),
        changed(good, body=5),
        changed(good, body="é"),
        changed(good, sub=None),
    ]
    for signature in rejected:
        assert await call(site, signature.encode().decode("latin-1")) == 401, signature
    assert await call(site, changed(good, exp=int(time.time()) - 5)) == 200, "clocks may differ a little"
    assert await call(site, good, b"x" * 5000) == 413


async def test_a_recovery_tick_does_the_work_of_a_claim(
    site: Site, ada: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    lost, delayed, waiting = [await create(ada, **fields) for fields in ({}, {"delay_s": 0.05}, {"priority": 8})]
    lease = await worker.claim()
    assert lease.run_id == waiting
    await worker.wait(lease, question(expires_s=0.05))
    (claim,) = (await worker.store.claim("lost", 1, lease_ms=50)).claims
    assert claim.run.id == lost

    async def recovered() -> bool:
        assert await call(site, sign(CURRENT_KEY, f"{site.edge.url}{PATH}", b"")) == 200
        statuses = [(await ada.get(f"/agent/runs/{run}")).json()["status"] for run in (lost, waiting)]
        depths = (await ada.get("/agent/queue")).json()
        # The delayed run and the lost one: as many wake tokens, which is what scales workers up.
        in_queue = depths["delayed"] == 0 and int(depths["pending"]) >= 2
        return bool(statuses[0] == "queued" and statuses[1] != "waiting" and in_queue)

    await until(recovered, "everything is recovered")
    assert (await ada.get(f"/agent/runs/{delayed}")).json()["status"] == "queued"


async def test_a_recovery_tick_with_nothing_to_do_is_cheap(site: Site, redis: RedisTcp) -> None:
    signature = sign(CURRENT_KEY, f"{site.edge.url}{PATH}", b"")
    await call(site, signature)
    before = await billed_commands(redis)
    assert await call(site, signature) == 200
    counted = await billed_commands(redis) - before
    assert counted.total() == cost_counts.RECOVERY_TICK, counted  # from which `swissbrain cost` computes the bill


async def test_a_tick_costs_beside_its_run_what_the_bill_says(
    site: Site, ada: httpx.AsyncClient, redis: RedisTcp
) -> None:
    schedule_id = await make(ada, overlap="queue")
    url = f"{site.edge.url}/internal/schedule-tick"
    body = json.encode({"schedule": schedule_id})

    async def tick(number: int) -> None:
        headers = {"Upstash-Signature": sign(CURRENT_KEY, url, body), "Upstash-Message-Id": f"message-{number}"}
        async with httpx.AsyncClient() as http:
            assert (await http.post(url, content=body, headers=headers)).status_code == 200

    await tick(0)
    await create(ada)
    ticks, creates = [], []
    for number in range(1, 4):
        before = await settled_commands(redis)
        await tick(number)
        with_tick = await settled_commands(redis)
        await create(ada)
        ticks.append((with_tick - before).total())
        creates.append((await settled_commands(redis) - with_tick).total())
    assert min(ticks) - min(creates) == cost_counts.SCHEDULE_TICK


@pytest.mark.parametrize("body", [b"", b"{}", b'{"schedule": 5}', b"\xff"])
async def test_a_tick_with_another_body_is_refused(site: Site, body: bytes) -> None:
    url = f"{site.edge.url}/internal/schedule-tick"
    headers = {"Upstash-Signature": sign(CURRENT_KEY, url, body), "Upstash-Message-Id": "m"}
    async with httpx.AsyncClient() as http:
        assert (await http.post(url, content=body, headers=headers)).status_code == 400
        del headers["Upstash-Message-Id"]
        assert (await http.post(url, content=body, headers=headers)).status_code == 400
