"""Redis that rejects the calls of a worker, as after a change of its rights: the worker keeps its runs and goes on."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

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
        self.url = tcp.url.replace("redis://", "redis://limited:secret@")
        self.rig = Rig(RedisTcpSettings(self.url))

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


@pytest.mark.parametrize("rules", [["-eval", "-evalsha"], ["-blpop", "resetchannels"]], ids=" ".join)
async def test_a_right_that_is_missing_for_a_while_costs_no_run(rig: Rig, limited: Limited, rules: list[str]) -> None:
    gate = Gate()
    worker = limited.rig.worker(gate)
    running = await rig.submit("wait")
    await gate.reached("wait")
    await limited.may(*rules)

    others = [await rig.submit("x") for _ in range(3)]
    _, pending = await asyncio.wait({worker.task}, timeout=0.5)
    assert pending

    await limited.may("+@all", "&*")
    gate.go.set()
    for run_id in (running, *others):
        assert (await rig.ended(run_id)).status is Status.SUCCEEDED
        assert [attempt.outcome for attempt in await rig.store.attempts(run_id)] == ["succeeded"]


async def test_the_product_says_in_one_line_which_right_it_lacks(limited: Limited, tmp_path: Path) -> None:
    await limited.may("resetchannels")
    variables = {"REDIS_URL": limited.url, "WORKER_ROOT": str(tmp_path), "S3_ACCESS_KEY": "a", "S3_SECRET_KEY": "s"}
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "worker", env={**os.environ, **variables}, stderr=asyncio.subprocess.PIPE
    )

    _, errors = await program.communicate()

    assert program.returncode == 1
    (line,) = [line for line in errors.decode().splitlines() if not line.startswith("{")]
    assert "no permissions for PUBLISH" in line


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
