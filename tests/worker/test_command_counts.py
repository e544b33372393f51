"""Redis commands of runs and workers, from which `swissbrain cost` computes the bill.

Every figure is an equality: a change that makes a run dearer or cheaper changes the constant, and so the bill.
"""

from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from infra.commands import cost_counts
from infra.contract.log import NewEvent
from infra.contract.queue import ClaimSeq, Lease, Writes
from infra.contract.redis import Redis
from tests.support.command_counts import billed_commands, settled_commands
from tests.worker.autoscaler import Autoscaler
from tests.worker.rig import Rig
from worker.queue.loop import MAX_BLOCK_S
from worker.settings import WorkerSettings

LEASE_MS = 60_000


async def cheapest_run(rig: Rig, steps: int) -> Counter[str]:
    """Count the commands of a run on an idle worker: from the request to the worker's next wait.

    The cheapest of several counts: the first run sends the scripts, and some creates tidy their user's index.
    """
    counts = []
    for _ in range(3):
        before = await settled_commands(rig.redis)
        await rig.submit(*(f"step {n}" for n in range(steps)))
        counts.append(await settled_commands(rig.redis) - before)
    return min(counts, key=Counter.total)


async def counted(redis: Redis, call: Callable[[], Awaitable[object]]) -> int:
    """Return the least number of commands of a call, of three."""
    counts = []
    for _ in range(3):
        before = await billed_commands(redis)
        await call()
        counts.append((await billed_commands(redis) - before).total())
    return min(counts)


async def test_a_run_and_a_further_step_cost_what_the_bill_says(rig: Rig) -> None:
    # A long lease, so that no renewal falls into the count.
    rig.worker(lease_s=600.0)
    one = await cheapest_run(rig, 1)
    six = await cheapest_run(rig, 6)
    assert one.total() == cost_counts.RUN, one
    assert (six.total() - one.total()) / 5 == cost_counts.STEP, six


async def test_a_batch_of_events_and_a_renewal_cost_what_the_bill_says(rig: Rig) -> None:
    run_id = await rig.submit("step")
    (claim,) = (await rig.store.claim("w", 1, lease_ms=LEASE_MS)).claims
    lease = Lease(run_id, claim.run.fence)

    async def emit() -> None:
        await rig.store.emit(lease, Writes(events=[NewEvent(ts=1, type="log.line", step=1, data={"text": "x"})] * 20))
        lease.batch += 1

    assert await counted(rig.redis, emit) == cost_counts.BATCH
    renewal = await counted(rig.redis, lambda: rig.store.renew([lease], lease_ms=LEASE_MS))
    assert renewal == cost_counts.RENEWAL
    assert WorkerSettings("w", 1, 15.0, 1.0, Path()).lease_s / 3 == cost_counts.RENEWAL_S


async def test_an_idle_worker_and_a_poll_of_keda_cost_what_the_bill_says(rig: Rig) -> None:
    numbers = iter(range(1, 9))

    async def claim_nothing() -> None:
        await rig.store.claim("w", 4, lease_ms=LEASE_MS, seq=ClaimSeq("process", next(numbers)), alive=True)

    claim = await counted(rig.redis, claim_nothing)
    blocking_wait = 1
    assert (claim + blocking_wait) * 3600 / MAX_BLOCK_S == cost_counts.IDLE_WORKER_HOUR
    assert await counted(rig.redis, Autoscaler(rig.redis).replicas) == cost_counts.KEDA_POLL
