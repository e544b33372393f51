"""Drain: runs stop at a step boundary or are released, and no wake token goes missing."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from infra.contract.states import Status
from tests.support.waiting import until
from tests.worker.rig import Gate, Rig
from worker.queue import loop
from worker.queue.waits import wait_any


async def test_drain_stops_at_a_step_boundary_and_burns_no_attempt(rig: Rig) -> None:
    gate = Gate()
    worker = rig.worker(gate)
    run_id = await rig.submit("wait", "after")
    await gate.reached("wait")
    worker.loop.drain()
    gate.go.set()
    await asyncio.wait_for(worker.task, 20)
    record = await rig.store.get(run_id)
    assert (record.status, record.attempt) == (Status.QUEUED, 0)
    assert gate.calls == {"wait": 1}
    rig.worker(gate)
    assert (await rig.ended(run_id)).status is Status.SUCCEEDED
    assert gate.calls == {"wait": 1, "after": 1}


@pytest.mark.parametrize("way", ["grace over", "second signal"])
async def test_drain_releases_runs_that_do_not_end_in_time(rig: Rig, way: str) -> None:
    gate = Gate()
    worker = rig.worker(gate, grace_s=0.05 if way == "grace over" else 600)
    run_id = await rig.submit("wait")
    await gate.reached("wait")
    worker.loop.drain()
    if way == "second signal":
        worker.loop.drain()
    await asyncio.wait_for(worker.task, 20)
    record = await rig.store.get(run_id)
    assert (record.status, record.attempt) == (Status.QUEUED, 0)
    assert gate.cancelled == ["wait"]
    depths = await rig.store.depths()
    assert (depths.ready, depths.pending, depths.running) == (1, 1, 0)


async def test_a_drain_ends_well_if_the_last_run_ends_at_its_beginning(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    worker = rig.worker(gate)
    run_id = await rig.submit("wait")
    await gate.reached("wait")

    async def wait_late(*waits: Coroutine[Any, Any, Any], timeout_s: float) -> None:
        gate.go.set()
        (task,) = [task for task in asyncio.all_tasks() if task.get_name() == f"run {run_id}"]
        await task
        await wait_any(*waits, timeout_s=timeout_s)

    monkeypatch.setattr(loop, "wait_any", wait_late)
    worker.loop.drain()
    await asyncio.wait_for(worker.task, 20)
    assert (await rig.store.get(run_id)).status is Status.SUCCEEDED


async def test_a_drained_worker_leaves_no_token_missing(rig: Rig) -> None:
    workers = [rig.worker() for _ in range(3)]

    async def blocked() -> bool:
        return "blocked_clients:3" in str(await rig.redis.command("INFO", "clients"))

    await until(blocked, "all workers sleep")
    await asyncio.gather(*(worker.drained() for worker in workers))
    await rig.submit("x")
    depths = await rig.store.depths()
    assert (depths.ready, depths.pending) == (1, 1)
