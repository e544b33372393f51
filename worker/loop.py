"""Pulls runs and drains: sleeps until a wake token or the alarm, claims what is ready, starts it."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, Protocol

from infra.contract.errors import StoreUnavailable
from infra.contract.models import Claim
from infra.contract.ports import LogFeed
from infra.contract.store import Lease, RunStore
from infra.logging import log
from worker.alarm import Alarm
from worker.control import Control
from worker.lease import ActiveRun, LeaseKeeper, Stop
from worker.runner import Runner
from worker.settings import WorkerSettings

MAX_BLOCK_S = 240.0
"""The longest sleep without a look at the queue: bounds what a wake token lost with a dying worker can delay."""
RECONNECT_S = 0.5


class Queue(LogFeed, Protocol):
    """Where wake tokens and nudges come from."""

    async def wait_token(self, key: str, timeout_s: float) -> bool:
        """Take a token of the list, waiting at most `timeout_s`. Raises StoreUnavailable."""
        ...


class WorkerLoop:
    """One worker: `run` until `drain` was called and every run has been left."""

    def __init__(
        self, settings: WorkerSettings, store: RunStore, queue: Queue, keeper: LeaseKeeper, runner: Runner
    ) -> None:
        self._settings = settings
        self._store = store
        self._queue = queue
        self._keeper = keeper
        self._runner = runner
        self._alarm = Alarm()
        self._control = Control(queue, store.keys.control, keeper, self._alarm)
        self._draining = asyncio.Event()
        self._hurry = asyncio.Event()
        self._slot_freed = asyncio.Event()
        self._more = False
        self._runs: set[asyncio.Task[None]] = set()
        self._token: asyncio.Task[None] | None = None

    def drain(self) -> None:
        """Stop claiming and let runs reach a step boundary within the grace period; a second call ends the grace."""
        if self._draining.is_set():
            self._hurry.set()
        self._draining.set()
        for active in self._keeper.runs():
            active.draining = True

    async def run(self) -> None:
        """Work until drained. If a side task dies, all of it stops with that error."""
        async with asyncio.TaskGroup() as group:
            sides = [self._keeper.renew_forever(), self._control.listen_forever()]
            tasks = [group.create_task(side) for side in sides]
            try:
                await self._pull()
            finally:
                await self._let_go_of_token()
            await self._leave()
            for task in tasks:
                task.cancel()

    async def _pull(self) -> None:
        await self._claim(self._settings.slots)
        while not self._draining.is_set():
            free = self._settings.slots - len(self._runs)
            if free > 0:
                if not self._more:
                    await self._sleep()
                free = self._settings.slots - len(self._runs)
                if not self._draining.is_set():
                    await self._claim(free)
            else:
                await self._wait_for_slot()

    async def _sleep(self) -> None:
        """Until a token comes, the alarm rings, or draining begins."""
        if self._token is None:
            self._token = asyncio.create_task(self._take_token())
        await _first(self._alarm.wait(), self._draining.wait(), beside=self._token)
        if self._token.done():
            self._token = None

    async def _wait_for_slot(self) -> None:
        """A token taken while all slots are busy is put back at once, for the other workers."""
        self._slot_freed.clear()
        await _first(self._slot_freed.wait(), self._draining.wait(), beside=self._token)
        if self._token and self._token.done() and len(self._runs) >= self._settings.slots:
            self._token = None
            await self._claim(0)

    async def _take_token(self) -> None:
        try:
            await self._queue.wait_token(self._store.keys.pending, MAX_BLOCK_S)
        except StoreUnavailable as exc:
            log("queue.unreachable", reason=str(exc))
            await asyncio.sleep(RECONNECT_S)

    async def _let_go_of_token(self) -> None:
        """End the blocking pop. The token it may have taken is put back by a claim of nothing."""
        if self._token:
            self._token.cancel()
            await asyncio.gather(self._token, return_exceptions=True)
            await self._claim(0)

    async def _claim(self, wanted: int) -> None:
        """Claim and start what was granted; set the alarm to what the answer says.

        If all that was wanted was granted, there may be more: the next claim does not wait for a token. It puts right
        how many of them there are.
        """
        settings = self._settings
        sent = time.monotonic()
        try:
            claimed = await self._store.claim(settings.name, wanted, lease_ms=settings.lease_ms)
        except StoreUnavailable as exc:
            log("queue.unreachable", reason=str(exc))
            self._alarm.hasten(int(RECONNECT_S * 1000))
            self._more = False
            return
        self._keeper.pulse.beat()
        self._alarm.set(claimed.next_ms)
        self._more = 0 < wanted == len(claimed.claims)
        for claim in claimed.claims:
            self._start(claim, sent)

    def _start(self, claim: Claim, sent: float) -> None:
        run = claim.run
        log("run.claimed", run_id=run.id, fence=run.fence, attempt=run.attempt)
        active = ActiveRun(Lease(run.id, run.fence), self._settings.lease_s)
        active.renewed(sent)  # the answer may have come late
        active.draining = self._draining.is_set()
        former = self._keeper.add(active)
        task = asyncio.create_task(self._run(claim, active, former), name=f"run {run.id}")
        self._runs.add(task)

        def left(done: "asyncio.Task[None]") -> None:
            self._keeper.remove(active)
            self._runs.discard(done)
            self._slot_freed.set()
            if not done.cancelled() and (error := done.exception()):
                log("run.dropped", run_id=run.id, fence=run.fence, error=error)

        task.add_done_callback(left)

    async def _run(self, claim: Claim, active: ActiveRun, former: ActiveRun | None) -> None:
        """Work on a run once its former owner here, whose lease ended unnoticed, has let go of programs and files."""
        if former:
            await former.left.wait()
        await self._runner.run(claim, active)

    async def _leave(self) -> None:
        """Wait for the runs within the grace period, then give the rest back."""
        log("worker.draining", runs=len(self._runs))
        if self._runs:
            await _first(asyncio.wait(self._runs), self._hurry.wait(), timeout_s=self._settings.grace_s)
        for active in self._keeper.runs():
            active.stop(Stop.DRAIN)
        if self._runs:
            await asyncio.wait(self._runs)


async def _first(
    *waits: Coroutine[Any, Any, Any], beside: asyncio.Task[None] | None = None, timeout_s: float | None = None
) -> None:
    """Wait until one of these is done, and end the others but the task `beside`. Raises what a finished one raised."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    watched = [*tasks, beside] if beside else tasks
    try:
        await asyncio.wait(watched, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result
