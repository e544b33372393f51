"""Wake tokens: a sleeping worker claims a run although another worker died with its token."""

import asyncio

import pytest

from infra.contract.log import NewEvent
from infra.contract.queue import Lease, Writes
from infra.contract.states import Status
from tests.support.waiting import until
from tests.worker.rig import Rig

LAST = Writes(events=[NewEvent(ts=1, type="log")])


async def waiting(rig: Rig, number: int) -> None:
    """Return once `number` connections wait for a token."""

    async def blocked() -> bool:
        return f"blocked_clients:{number}" in str(await rig.redis.command("INFO", "clients"))

    await until(blocked, f"{number} connections wait for a token")


@pytest.mark.parametrize("way", ["created", "given back", "retried", "resumed"])
async def test_a_token_taken_by_a_dying_worker_is_replaced_soon(rig: Rig, way: str) -> None:
    run_id = "run_1"
    if way != "created":
        run_id = await rig.submit("x")
        (claim,) = (await rig.store.claim("w", 1, lease_ms=600_000)).claims
        lease = Lease(run_id, claim.run.fence)
        if way == "retried":
            await rig.store.finish(lease, Status.FAILED, LAST)
        if way == "resumed":
            await rig.store.wait(lease, LAST)
    dying = asyncio.create_task(rig.redis.wait_token(rig.store.keys.pending, 600))
    await waiting(rig, 1)
    rig.worker()
    await waiting(rig, 2)
    if way == "created":
        run_id = await rig.submit("x")
    elif way == "given back":
        await rig.store.release(lease, LAST, delay_ms=0, burn=False)
    elif way == "retried":
        await rig.store.retry(run_id, token="t")
    else:
        await rig.store.resume(run_id, "yes", token="t")
    assert await dying
    assert (await rig.ended(run_id)).status is Status.SUCCEEDED
