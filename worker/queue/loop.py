"""Loop of one worker: waits for work, claims ready runs, starts a task for each, and drains at the end.

**Claim.** `WorkQueue.claim` is one atomic script call and the only source of truth: it recovers expired leases,
promotes due runs and grants ready runs. Everything else here only decides when to send the next claim, and for how many
runs. If all runs asked for were granted, more may be ready, so the next claim follows without waiting. After a lost
reply the next claims are limited (see `claim_numbers`).

**Wake tokens.** The list `jobs:pending` holds one token for each ready run. A worker with a free slot blocks on it. A
token is only a hint that wakes one worker; the claim that follows makes the number of tokens equal to the number of
ready runs again. A token that this worker has taken but cannot use (all slots busy, backing off, draining) is returned
by a claim for no run, so that another worker wakes.

**Alarm.** Some runs become ready without a token: a lease expires, a delayed run is due. The reply to a claim and the
control channel say when that happens next; `Alarm` wakes this loop then.

**Fitness.** Until its checks have passed, the worker claims no run (see worker.fitness). After a failure that indicts
the store or the sandbox it is checked again; after one that indicts the host it pauses (`Lack`).

**Drain.** `drain` stops claiming and asks all runs to stop at the next step boundary. Runs that are still working after
the grace period are stopped and released to the queue; the attempt does not count. If Redis cannot be reached for that,
the worker ends after RELEASE_S, and the leases expire.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from infra import metrics
from infra.contract.errors import StoreRejected, StoreUnavailable
from infra.contract.queue import Claim, Lease
from infra.contract.redis_store.work_queue import WorkQueue
from infra.logging import log
from worker import loop_lag
from worker.fitness import Fitness
from worker.lease import ActiveRun, LeaseKeeper, StopReason
from worker.queue.alarm import Alarm
from worker.queue.claim_numbers import ClaimNumbers
from worker.queue.control import Control
from worker.queue.ports import ProcessIdentity, WakeFeed
from worker.queue.token_wait import TokenWait
from worker.queue.waits import wait_any
from worker.runner import Lack, Runner
from worker.settings import WorkerSettings

MAX_BLOCK_S = 240.0
"""Longest wait without a claim, also while all slots are taken. Bounds the delay of a run whose wake token was lost
together with a worker."""
NOTE_S = 30.0
"""Time after which a claim notes again that this worker is alive. Added to MAX_BLOCK_S, it is shorter than ALIVE_MS, so
that a living worker always counts as alive; and a busy worker does not pay a command for each claim."""
RETRY_S = 0.5
"""Pause before Redis is called again after it could not be reached.

Fixed instead of exponential, because it bounds the delay of the runs that were granted in a lost reply.
"""
HOST_BACKOFF_S = 30.0
"""Time without claims after this host was short of a resource: each further run would lose an attempt here."""
UNABLE_BACKOFF_S = 1.0
"""Time without claims after a run was given back because this host lacks a program that it needs. It is longer than the
first delay of such a run, so that a worker which has the program comes first."""
LATE_FOR_S = 60.0
"""Time after that in which the alarm of this worker is late, for the same reason."""
RELEASE_S = 5.0
"""Longest wait at the end of a drain for the remaining runs to be released."""
SIGN_OFF_S = 1.0
"""Longest wait for Redis to note that this worker asks for no more work; else it counts as alive for ALIVE_MS."""


class WorkerLoop:
    """Loop of one worker: `run` returns once it was drained: all runs have ended or were released. `beside`: tasks."""

    def __init__(
        self,
        settings: WorkerSettings,
        store: WorkQueue,
        wakes: WakeFeed,
        keeper: LeaseKeeper,
        runner: Runner,
        identity: ProcessIdentity,
        fitness: Fitness,
        beside: Sequence[Callable[[], Coroutine[Any, Any, None]]] = (),
    ) -> None:
        self._settings = settings
        self._store = store
        self._keeper = keeper
        self._runner = runner
        self._alarm = Alarm()
        self._control = Control(wakes, store.keys.control, keeper, self._alarm, runner.end_unowned)
        self._draining = asyncio.Event()
        self._grace_ended = asyncio.Event()
        self._slot_freed = asyncio.Event()
        self._identity = identity
        self._fitness = fitness
        self._beside = beside
        self._numbers = ClaimNumbers(settings.slots, identity.process, identity.dead_processes)
        self._more_ready = False
        self._runs: set[asyncio.Task[None]] = set()
        self._token_wait = TokenWait(wakes, store.keys.pending, block_s=MAX_BLOCK_S, retry_s=RETRY_S)
        self._backoff_until = time.monotonic()
        self._look_at = self._note_at = time.monotonic()

    def drain(self) -> None:
        """Stop claiming and let runs reach a step boundary within the grace period. A second call ends the grace."""
        if self._draining.is_set():
            self._grace_ended.set()
        self._draining.set()
        for active in self._keeper.runs():
            active.draining = True

    async def run(self) -> None:
        """Work until drained. If one of the tasks beside the claims fails, stop everything with its error."""
        async with asyncio.TaskGroup() as group:
            sides = [
                self._keeper.renew_forever(),
                self._control.listen_forever(),
                self._fitness.check_forever(),
                loop_lag.measure_forever(),
                *(begin() for begin in self._beside),
            ]
            tasks = [group.create_task(side) for side in sides]
            try:
                await self._claim_until_draining()
            finally:
                await self._return_unused()
                await self._sign_off()
            await self._finish_runs()
            for task in tasks:
                task.cancel()

    async def _claim_until_draining(self) -> None:
        # Also if the worker is not fit yet, because a claim for no run recovers runs.
        await self._claim(self._free_slots())
        while not self._draining.is_set():
            if self._free_slots() > 0:
                if not self._more_ready:
                    await self._wait_for_work()
                if not self._draining.is_set():
                    await self._claim(self._free_slots())
            else:
                await self._wait_for_slot()

    def _free_slots(self) -> int:
        """Return how many further runs this worker can take; 0 while it backs off or is unfit."""
        if time.monotonic() < self._backoff_until or not self._fitness.is_fit:
            return 0
        return self._settings.slots - len(self._runs)

    async def _wait_for_work(self) -> None:
        """Return when a token was taken, the alarm rings, or draining begins."""
        token = self._token_wait.begin()
        # After a lost reply the next claim must come soon, even if control messages have moved the alarm since.
        timeout_s = RETRY_S if self._numbers.reply_lost else None
        await wait_any(self._alarm.wait(), self._draining.wait(), also=token, timeout_s=timeout_s)

    async def _wait_for_slot(self) -> None:
        """Return when a slot may be free, draining begins, or it is time for a look at the queue.

        Returns a token taken meanwhile.
        """
        self._slot_freed.clear()
        backoff_s, look_s = self._backoff_until - time.monotonic(), self._look_at - time.monotonic()
        timeout_s = backoff_s if backoff_s > 0 else max(0.0, look_s)
        waits: list[Coroutine[Any, Any, object]] = [self._slot_freed.wait(), self._draining.wait(), self._urged()]
        was_fit = self._fitness.is_fit
        if not was_fit:
            waits.append(self._fitness.until_fit())
        await wait_any(*waits, also=self._token_wait.task, timeout_s=timeout_s)
        if self._fitness.is_fit and not was_fit:
            # The next claim comes immediately, because only a fit worker is noted as alive.
            self._alarm.hasten(0)
        # This worker cannot take the run of the token now. A claim for no run issues the token again, for the others.
        if self._free_slots() <= 0 and (self._token_wait.is_done or time.monotonic() >= self._look_at):
            await self._claim(0)

    async def _urged(self) -> None:
        await self._alarm.wait_urgent()
        self._look_at = time.monotonic()

    async def _return_unused(self) -> None:
        """Stop waiting for tokens; return a token, and runs granted in a lost reply, by a claim for no run."""
        if await self._token_wait.stop() or self._numbers.reply_lost:
            await self._claim(0)

    async def _sign_off(self) -> None:
        with suppress(StoreUnavailable, StoreRejected, TimeoutError):
            async with asyncio.timeout(SIGN_OFF_S):
                await self._store.sign_off(self._identity.process)

    async def _claim(self, wanted: int) -> None:
        """Claim up to `wanted` runs, start those that were granted, and set the alarm for the next claim."""
        settings, token_taken = self._settings, self._token_wait.collect()
        asked_for = self._numbers.limit(wanted)
        seq = self._numbers.start()
        sent_at = time.monotonic()
        alive = self._fitness.is_fit and sent_at >= self._note_at
        self._alarm.claim_sent()
        try:
            reply = await self._store.claim(
                settings.name,
                asked_for,
                lease_ms=settings.lease_ms,
                token_taken=token_taken,
                seq=seq,
                alive=alive,
            )
        except (StoreUnavailable, StoreRejected) as exc:
            if isinstance(exc, StoreRejected):
                # A worker that lacks a right from the start ends; one that loses it later keeps its runs meanwhile.
                if seq.number == 1:
                    raise
                # Tokens may still come, each of which would be followed by such a claim.
                await asyncio.sleep(RETRY_S)
            log("queue.unreachable", level=logging.WARNING, reason=str(exc))
            metrics.claim_unanswered()
            self._numbers.lose_reply(asked_for)
            self._alarm.hasten(int(RETRY_S * 1000))
            self._more_ready = False
            self._look_at = time.monotonic() + RETRY_S
            return
        if self._numbers.has_dead:
            self._identity.forget_dead()
        self._numbers.acknowledge()
        self._look_at = time.monotonic() + MAX_BLOCK_S
        self._note_at = sent_at + NOTE_S if alive else self._note_at
        self._keeper.heartbeat.record()
        metrics.claim_answered(reply)
        self._alarm.claim_answered(reply.next_ms)
        # Also true if the claim was limited to no run: the next one may follow immediately.
        self._more_ready = wanted > 0 and len(reply.claims) == asked_for
        for claim in reply.claims:
            self._start(claim, sent_at)
        for run_id, reason in reply.set_aside.items():
            log("run.set_aside", level=logging.ERROR, run_id=run_id, reason=reason)
        for lease in reply.unreadable:
            await self._runner.fail_unreadable(lease)

    def _start(self, claim: Claim, sent_at: float) -> None:
        run = claim.run
        log("run.claimed", run_id=run.id, fence=run.fence, attempt=run.attempt)
        active = ActiveRun(Lease(run.id, run.fence, run.user, claim.owner), self._settings.lease_s)
        # If the reply was late, part of the lease, or all of it, is over already.
        active.extend(sent_at)
        # Draining may have begun while the claim was under way.
        active.draining = self._draining.is_set()
        previous = self._keeper.add(active)
        task = asyncio.create_task(self._run(claim, active, previous), name=f"run {run.id}")
        self._runs.add(task)

        def on_done(done: "asyncio.Task[None]") -> None:
            self._keeper.remove(active)
            self._runs.discard(done)
            self._slot_freed.set()
            if not done.cancelled() and (error := done.exception()):
                log("run.dropped", level=logging.ERROR, run_id=run.id, fence=run.fence, error=error)

        task.add_done_callback(on_done)

    async def _run(self, claim: Claim, active: ActiveRun, previous: ActiveRun | None) -> None:
        """Work on a run; if this worker turns out to lack something, claim nothing for a while."""
        # An earlier attempt of this worker, whose lease expired unnoticed, may still use the run's folder and programs.
        if previous:
            await previous.finished.wait()
        match await self._runner.run(claim, active):
            case Lack.RESOURCE:
                self._back_off(HOST_BACKOFF_S)
            case Lack.STORE:
                self._fitness.doubt()
            case Lack.PROGRAM:
                self._fitness.doubt()
                self._back_off(UNABLE_BACKOFF_S)
                self._alarm.be_late(LATE_FOR_S)

    def _back_off(self, seconds: float) -> None:
        log("worker.backoff", seconds=seconds)
        self._backoff_until = max(self._backoff_until, time.monotonic() + seconds)

    async def _finish_runs(self) -> None:
        """Wait for the runs within the grace period, then release the rest to the queue."""
        log("worker.draining", runs=len(self._runs))
        if self._runs:
            await wait_any(asyncio.wait(tuple(self._runs)), self._grace_ended.wait(), timeout_s=self._settings.grace_s)
        for active in self._keeper.runs():
            active.stop(StopReason.DRAIN)
        if self._runs:
            _, unreleased = await asyncio.wait(self._runs, timeout=RELEASE_S)
            # Redis does not reply: the process must end nevertheless, and the leases expire.
            for task in unreleased:
                task.cancel()
            await asyncio.gather(*unreleased, return_exceptions=True)
