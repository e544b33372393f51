"""Autoscaling as KEDA does it, from no worker to several and back, with arbitrary victims."""

import asyncio
import random
from collections import Counter

from infra.contract.states import Status
from tests.support.command_counts import billed_commands
from tests.support.waiting import until
from tests.worker.autoscaler import Autoscaler
from tests.worker.rig import Rig, Worker
from worker.toolkit.base import ToolContext

SLOTS = 8
SHORT, LONG = 16, 4
STEPS = 3


class Steps:
    """Tool that counts the executions of each command; the second step of a long run waits until `go` is set."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.go = asyncio.Event()

    async def __call__(self, _context: ToolContext, command: str) -> None:
        self.calls[command] += 1
        if command.startswith("long") and command.endswith("step 1"):
            await self.go.wait()

    async def waiting(self, count: int) -> None:
        """Return once this number of long runs is in its second step."""

        async def all_there() -> bool:
            return (
                sum(n for name, n in self.calls.items() if name.startswith("long") and name.endswith("step 1")) == count
            )

        await until(all_there, f"{count} runs are in their second step")


class Deployment:
    """Workers of a Deployment. Scaling down drains workers that are chosen without regard to their load."""

    def __init__(self, rig: Rig, body: Steps, chance: random.Random) -> None:
        self._rig, self._body, self._chance = rig, body, chance
        self.workers: list[Worker] = []

    def grow(self, replicas: int) -> None:
        while len(self.workers) < replicas:
            self.workers.append(self._rig.worker(self._body, slots=SLOTS, grace_s=60.0))

    def shrink(self, replicas: int) -> list[Worker]:
        """Send SIGTERM to the victims and return them."""
        self._chance.shuffle(self.workers)
        self.workers, victims = self.workers[:replicas], self.workers[replicas:]
        for victim in victims:
            victim.loop.drain()
        return victims


def commands(name: str) -> list[str]:
    return [f"{name} step {step}" for step in range(STEPS)]


async def test_bursts_are_worked_off_and_the_workers_go_away(rig: Rig) -> None:
    autoscaler, chance = Autoscaler(rig.redis), random.Random(7)
    for burst in range(2):
        body = Steps()
        deployment = Deployment(rig, body, chance)
        assert await autoscaler.replicas() == 0
        names = [f"{kind} {burst}.{n}" for kind, count in (("short", SHORT), ("long", LONG)) for n in range(count)]
        runs = {name: await rig.submit(*commands(name)) for name in names}

        assert await autoscaler.replicas() == 3
        deployment.grow(3)
        await body.waiting(LONG)
        for name in names[:SHORT]:
            await rig.ended(runs[name])
        # The long runs are leased and nothing is pending. Whoever has them, all workers but one end.
        assert await autoscaler.replicas() == 1
        victims = deployment.shrink(1)
        body.go.set()
        for victim in victims:
            await victim.drained()
        records = [await rig.ended(run_id) for run_id in runs.values()]

        assert await autoscaler.replicas() == 0
        for victim in deployment.shrink(0):
            await victim.drained()
        assert {record.status for record in records} == {Status.SUCCEEDED}
        assert body.calls == Counter({command: 1 for name in names for command in commands(name)})
        assert {record.attempt for record in records} == {1}


async def test_a_backlog_behind_full_workers_adds_workers(rig: Rig) -> None:
    """The longer of two lengths would not: as many pending as leased runs would look like enough workers."""
    autoscaler, body = Autoscaler(rig.redis), Steps()
    deployment = Deployment(rig, body, random.Random(7))
    for n in range(SLOTS):
        await rig.submit(*commands(f"long {n}"))
    deployment.grow(await autoscaler.replicas())
    await body.waiting(SLOTS)
    assert len(deployment.workers) == 1

    for n in range(SLOTS):
        await rig.submit(*commands(f"short {n}"))

    assert await autoscaler.replicas() == 2
    body.go.set()


async def test_a_delayed_run_without_any_worker_gets_one(rig: Rig) -> None:
    """Only the claim of a worker makes it ready, so a count of ready and leased runs would leave it for ever."""
    autoscaler, body = Autoscaler(rig.redis), Steps()
    deployment = Deployment(rig, body, random.Random(7))
    run_id = await rig.submit(*commands("short"), delay_s=0.2)

    assert await rig.redis.command("LLEN", "jobs:pending") == 0
    assert await autoscaler.replicas() == 1
    deployment.grow(1)

    assert (await rig.ended(run_id)).status is Status.SUCCEEDED
    assert await autoscaler.replicas() == 0


async def test_a_poll_costs_nine_commands(rig: Rig) -> None:
    autoscaler = Autoscaler(rig.redis)
    before = await billed_commands(rig.redis)
    await autoscaler.replicas()
    assert await billed_commands(rig.redis) - before == Counter(eval=3, type=3, llen=3)
