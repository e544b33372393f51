"""Redis that rejects the calls of a worker, as after a change of its rights: the worker keeps its runs and goes on."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from infra.contract.errors import StoreRejected
from infra.contract.redis import Redis
from infra.contract.states import Status
from infra.settings import RedisTcpSettings
from tests.support.waiting import until
from tests.worker.rig import Gate, Rig


class Limited:
    """User of Redis whose rights change, and workers that are this user."""

    def __init__(self, admin: Redis, tcp: RedisTcpSettings) -> None:
        self._admin = admin
        self.rig = Rig(RedisTcpSettings(tcp.url.replace("redis://", "redis://limited:secret@")))

    async def may(self, *rules: str) -> None:
        await self._admin.command("ACL", "SETUSER", "limited", *rules)


@pytest.fixture
async def limited(rig: Rig, tcp: RedisTcpSettings) -> AsyncIterator[Limited]:
    made = Limited(rig.redis, tcp)
    await made.may("reset", "on", ">secret", "~*", "&*", "+@all")
    yield made
    await made.may("+@all", "&*")
    await made.rig.close()
    await rig.redis.command("ACL", "DELUSER", "limited")


@pytest.mark.parametrize("rules", [["-eval", "-evalsha"], ["-blpop"], ["resetchannels"], ["-zadd"]], ids=" ".join)
async def test_a_right_that_is_missing_for_a_while_costs_no_run(rig: Rig, limited: Limited, rules: list[str]) -> None:
    gate = Gate()
    worker = limited.rig.worker(gate)
    running = await rig.submit("wait")
    await gate.reached("wait")
    await limited.may(*rules)

    others = [await rig.submit("x") for _ in range(3)]
    _, pending = await asyncio.wait({worker.task}, timeout=0.7)
    assert pending

    await limited.may("+@all", "&*")
    gate.go.set()
    for run_id in (running, *others):
        assert (await rig.ended(run_id)).status is Status.SUCCEEDED
        assert [attempt.outcome for attempt in await rig.store.attempts(run_id)] == ["succeeded"]


async def test_a_worker_that_lacks_a_right_from_the_start_ends(rig: Rig, limited: Limited) -> None:
    await limited.may("resetchannels")
    run_id = await rig.submit("x")
    worker = limited.rig.worker()

    async def has_ended() -> bool:
        return worker.task.done()

    await until(has_ended, "the worker ends")
    with pytest.raises(ExceptionGroup) as caught:
        worker.task.result()
    assert caught.group_contains(StoreRejected, match="no permissions")
    rig.worker()
    assert (await rig.ended(run_id)).status is Status.SUCCEEDED
