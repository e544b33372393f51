"""Pulls runs and drains: sleeps until a wake token or the alarm, claims what is ready, starts it."""

import asyncio
import secrets
import time
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, Protocol

from infra.contract.errors import StoreUnavailable
from infra.contract.log import LogFeed
from infra.contract.queue import Claim, ClaimSeq, Lease
from infra.contract.redis_store.work_queue import WorkQueue
from infra.logging import log
from worker.lease import ActiveRun, LeaseKeeper, Stop
from worker.queue.alarm import Alarm
from worker.queue.control import Control
from worker.runner import Runner
from worker.settings import WorkerSettings

MAX_BLOCK_S = 240.0
"""The longest sleep without a look at the queue: bounds what a wake token lost with a dying worker can delay."""
RECONNECT_S = 0.5
REST_S = 30.0
"""A worker whose host is short of something claims nothing for so long: it would use up the attempts of every run."""
GIVE_BACK_S = 5.0
"""So long may it take to give back what the grace period has not ended. If Redis is away, leases end by themselves."""


class Queue(LogFeed, Protocol):
    """Where wake tokens and nudges come from."""

    async def wait_token(self, key: str, timeout_s: float) -> bool:
        """Take a token of the list, waiting at most `timeout_s`. Raises StoreUnavailable."""
        ...


class WorkerLoop:
    """One worker: `run` until `drain` was called and every run has been left."""

    def __init__(
        self, settings: WorkerSettings, store: WorkQueue, queue: Queue, keeper: LeaseKeeper, runner: Runner
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
        self._claim_seq = ClaimSeq(secrets.token_hex(8))
        self._trust = settings.slots
        self._runs: set[asyncio.Task[None]] = set()
        self._token: asyncio.Task[bool] | None = None
        self._rested = time.monotonic()

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
            if self._free() > 0:
                if not self._more:
                    await self._sleep()
                if not self._draining.is_set():
                    await self._claim(self._free())
            else:
                await self._wait_for_slot()

    def _free(self) -> int:
        """How many runs may be claimed."""
        return 0 if time.monotonic() < self._rested else self._settings.slots - len(self._runs)

    async def _sleep(self) -> None:
        """Until a token comes, the alarm rings, or draining begins."""
        if self._token is None:
            self._token = asyncio.create_task(self._take_token())
        # After a lost reply the next claim must come soon, whatever nudges have set the alarm to.
        timeout_s = None if self._claim_seq.last_acked is None else RECONNECT_S
        await _first(self._alarm.wait(), self._draining.wait(), beside=self._token, timeout_s=timeout_s)

    async def _wait_for_slot(self) -> None:
        """A token taken while all slots are busy, or this worker rests, is put back at once, for the other workers."""
        self._slot_freed.clear()
        rest_s = self._rested - time.monotonic()
        timeout_s = rest_s if rest_s > 0 else None
        await _first(self._slot_freed.wait(), self._draining.wait(), beside=self._token, timeout_s=timeout_s)
        if self._token and self._token.done() and self._free() <= 0:
            await self._claim(0)

    async def _take_token(self) -> bool:
        try:
            return await self._queue.wait_token(self._store.keys.pending, MAX_BLOCK_S)
        except StoreUnavailable as exc:
            log("queue.unreachable", reason=str(exc))
            await asyncio.sleep(RECONNECT_S)
            return False

    def _has_taken(self) -> bool:
        """Whether a token has come since the last claim."""
        if self._token is None or not self._token.done():
            return False
        token, self._token = self._token, None
        return not token.cancelled() and token.result()

    async def _let_go_of_token(self) -> None:
        """End the blocking pop. A claim of nothing puts back what was taken in vain: a token, runs of a lost answer."""
        if self._token:
            self._token.cancel()
            await asyncio.gather(self._token, return_exceptions=True)
        if self._token or self._claim_seq.last_acked is not None:
            await self._claim(0)

    async def _claim(self, wanted: int) -> None:
        """Claim and start what was granted; set the alarm to what the answer says.

        If all that was wanted was granted, there may be more: the next claim does not wait for a token. It puts right
        how many of them there are. After a lost answer what it granted is taken back first, and then one run is
        claimed: if it is a run that no answer can carry, no other one suffers with it.
        """
        settings, taken = self._settings, self._has_taken()
        number = self._claim_seq.number + 1
        self._claim_seq = replace(self._claim_seq, number=number)
        allowed = min(wanted, self._trust)
        sent = time.monotonic()
        self._alarm.asked()
        try:
            claimed = await self._store.claim(
                settings.name, allowed, lease_ms=settings.lease_ms, token_taken=taken, seq=self._claim_seq
            )
        except StoreUnavailable as exc:
            log("queue.unreachable", reason=str(exc))
            self._alarm.hasten(int(RECONNECT_S * 1000))
            self._more = False
            if allowed and self._claim_seq.last_acked is None:
                self._claim_seq = replace(self._claim_seq, last_acked=number - 1)
                self._trust = 0
            return
        self._claim_seq = replace(self._claim_seq, last_acked=None)
        self._trust = settings.slots if self._trust else 1
        self._keeper.pulse.beat()
        self._alarm.answered(claimed.next_ms)
        self._more = wanted > 0 and len(claimed.claims) == allowed
        for claim in claimed.claims:
            self._start(claim, sent)
        for lease in claimed.unreadable:
            await self._runner.refuse(lease)

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
        if await self._runner.run(claim, active):
            log("worker.rests", seconds=REST_S)
            self._rested = time.monotonic() + REST_S

    async def _leave(self) -> None:
        """Wait for the runs within the grace period, then give the rest back, or leave it behind."""
        log("worker.draining", runs=len(self._runs))
        if self._runs:
            await _first(asyncio.wait(self._runs), self._hurry.wait(), timeout_s=self._settings.grace_s)
        for active in self._keeper.runs():
            active.stop(Stop.DRAIN)
        if self._runs:
            _, left = await asyncio.wait(self._runs, timeout=GIVE_BACK_S)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)


async def _first(
    *waits: Coroutine[Any, Any, Any], beside: asyncio.Task[Any] | None = None, timeout_s: float | None = None
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
