"""Wake tokens: a sleeping worker claims a run although another worker died with its token."""

import asyncio

import pytest

from infra.contract.log import NewEvent
from infra.contract.queue import Lease, Writes
from infra.contract.states import Status
from tests.support.requests import answers, question
from tests.support.waiting import until
from tests.worker.rig import Gate, Rig
from worker.queue import loop

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
            await rig.store.wait(lease, LAST, [question()])
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
        await rig.store.resume(run_id, answers("q"), by="ada", token="t")
    assert await dying
    assert (await rig.ended(run_id)).status is Status.SUCCEEDED


async def alive(rig: Rig) -> int:
    return int(str(await rig.redis.command("ZCARD", rig.store.keys.workers)))


async def test_a_worker_is_noted_as_alive_until_it_drains(rig: Rig) -> None:
    workers = [rig.worker(), rig.worker()]
    await waiting(rig, 2)
    assert await alive(rig) == 2
    await workers[0].drained()
    assert await alive(rig) == 1
    await workers[1].drained()
    assert await alive(rig) == 0


async def test_a_worker_whose_slots_are_all_taken_still_shows_that_it_is_alive(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "MAX_BLOCK_S", 0.1)
    monkeypatch.setattr(loop, "NOTE_S", 0.0)
    gate = Gate()
    rig.worker(gate, slots=1)
    run_id = await rig.submit("wait")
    await gate.reached("wait")
    for _ in range(3):
        await rig.redis.command("DEL", rig.store.keys.workers)

        async def noted() -> bool:
            return await alive(rig) == 1

        await until(noted, "the busy worker has claimed again")
    other = await rig.submit("next")
    depths = await rig.store.depths()
    assert (depths.ready, depths.pending) == (1, 1)
    gate.go.set()
    for each in (run_id, other):
        assert (await rig.ended(each)).status is Status.SUCCEEDED
