"""Leases of the runs that this worker works on: renewed together in one call; a run stops when its lease is lost.

What happens when a lease is lost?

- **Who notices.** Redis, if it can be reached: a renewal or an emit under a stale fence is answered LOST (GONE if the
  run was deleted), and `ActiveRun.apply_reply` acts on the answer. This process, if Redis cannot be reached: after a
  failed renewal LeaseKeeper stops each run whose `valid_until` has passed, and `ActiveRun.check_lease` raises LeaseLost
  before each step, because a process that was suspended may reach a step before its timers fire. If this worker is
  granted a run that it still works on, `LeaseKeeper.add` stops the earlier attempt.
- **What is cancelled.** The task that works on the run, and with it the tool call under way: its process tree is dead
  before the cancellation completes (see `Executor.execute`), unless its executor lets the next owner adopt it.
- **What may still be written.** No event, journal entry, file or outcome. The runner drops the buffered events and
  writes no outcome (it logs `run.abandoned`). A call under way carries the old fence, so Redis rejects it once the run
  has been requeued; only `trim` is accepted until the next claim, and it moves events that are stored already. Objects
  uploaded for an uncommitted change, or for a log segment that no record names, stay unreferenced.
- **What the next owner does.** The next claim of any worker finds the expired lease and requeues the run
  (`run.requeued` with `lease_expired`). The attempt counts: after the last one the run fails with `worker_lost`. The
  new owner has a higher fence and continues after the last journaled step, on the workspace that the record names. If
  the next owner is this worker, WorkerLoop begins the new attempt only after the earlier one has ended (`finished`).
"""

import asyncio
import logging
import time
from collections.abc import Iterable
from contextlib import suppress
from enum import StrEnum
from typing import Any

from infra import metrics
from infra.contract.errors import LeaseLost, StoreRejected, StoreUnavailable
from infra.contract.queue import Lease, LeaseReply
from infra.contract.redis_store.work_queue import WorkQueue
from infra.contract.states import Outcome
from infra.logging import log
from worker.health import Heartbeat

RETRY_S = 1.0
"""Longest pause before a failed renewal is repeated, and shortest deadline for the reply to a renewal.

Fixed instead of exponential, because the renewal must be repeated while the lease is still valid.
"""
CANCELLED_S = 0.5
"""Longest time from a cancel until the lease of the run is renewed, if the run has not ended by then: `cancel` shortens
the lease of a run whose program would outlive this worker to two seconds."""


class StopReason(StrEnum):
    """Reason for which the work on a run is stopped from outside."""

    CANCEL = "cancel"
    LOST = "lost"
    INTERRUPT = "interrupt"
    DRAIN = "drain"


class ActiveRun:
    """Run that this worker works on, from claim to outcome.

    `draining` asks the work to stop at the next step boundary. `stop_reason` is set once the work has been stopped.
    `valid_until` is the end of the lease, in seconds of the monotonic clock. `finished` is set when the worker has
    released all resources of the run.
    """

    def __init__(self, lease: Lease, lease_s: float) -> None:
        self.lease = lease
        self.stop_reason: StopReason | None = None
        self.draining = False
        self._is_gone = False
        self.finished = asyncio.Event()
        self._lease_s = lease_s
        self._work: asyncio.Task[Any] | None = None
        self.valid_until = time.monotonic() + lease_s

    def attach(self, work: asyncio.Task[Any]) -> None:
        """Set the task that `stop` cancels. Cancel the task immediately if `stop` was called before."""
        self._work = work
        if self.stop_reason:
            work.cancel()

    def stop(self, reason: StopReason) -> None:
        """Cancel the work. A lost lease overrides any other reason, because it forbids all further writes."""
        first = self.stop_reason is None
        if first or reason is StopReason.LOST:
            self.stop_reason = reason
        # A second cancellation would interrupt the clean-up that the first one started.
        if first and self._work:
            self._work.cancel()

    def apply_reply(self, reply: LeaseReply) -> None:
        """Stop the work if the reply to an emit or a renewal says so: no lease, a cancel, or an interrupt."""
        if reply.outcome in {Outcome.LOST, Outcome.GONE}:
            self._is_gone = reply.outcome is Outcome.GONE
            self.stop(StopReason.LOST)
        elif reply.cancel:
            self.stop(StopReason.CANCEL)
        elif reply.interrupt:
            self.stop(StopReason.INTERRUPT)

    def continues_elsewhere(self) -> bool:
        """Return whether another worker continues the run, as far as this one knows.

        An expired lease counts even if nobody has noticed yet: after a suspension, timers fire before the renewal.
        """
        if self._is_gone:
            return False
        expired = time.monotonic() >= self.valid_until
        return expired or self.stop_reason in {StopReason.LOST, StopReason.DRAIN}

    def check_lease(self) -> None:
        """Raise LeaseLost if the lease has expired by the local clock."""
        # The process may have been suspended past its lease: then this code runs before the renewal notices.
        if time.monotonic() >= self.valid_until:
            self.stop(StopReason.LOST)
            raise LeaseLost(f"the lease of run {self.lease.run_id} expired before it could be renewed")

    def extend(self, sent_at: float) -> None:
        """Extend the lease after a renewal that was sent at `sent_at`, in seconds of the monotonic clock."""
        # Redis counts from the execution of the call, which is later, so the lease never ends in Redis first.
        self.valid_until = sent_at + self._lease_s


class LeaseKeeper:
    """Holds the active runs and renews their leases.

    `heartbeat` records each reply of Redis; WorkerLoop records the replies to claims in it as well.
    """

    def __init__(self, store: WorkQueue, lease_s: float) -> None:
        self._store = store
        self._lease_s = lease_s
        self.heartbeat = Heartbeat()
        self._active: dict[str, ActiveRun] = {}
        self._has_runs = asyncio.Event()
        self._has_cancelled = asyncio.Event()

    def __len__(self) -> int:
        return len(self._active)

    def runs(self) -> Iterable[ActiveRun]:
        """Return a copy of the active runs, so that runs may be added or removed during the iteration."""
        return list(self._active.values())

    def add(self, active: ActiveRun) -> ActiveRun | None:
        """Renew the lease of the run from now on.

        If this worker still works on an earlier claim of the same run, whose lease expired unnoticed, stop and return
        the earlier attempt.
        """
        previous = self._active.get(active.lease.run_id)
        if previous:
            previous.stop(StopReason.LOST)
        self._active[active.lease.run_id] = active
        self._has_runs.set()
        return previous

    def remove(self, active: ActiveRun) -> None:
        """Stop renewing the lease of a run and mark the run as finished here."""
        active.finished.set()
        # By now the entry may belong to a later claim of the same run, which must stay.
        if self._active.get(active.lease.run_id) is active:
            del self._active[active.lease.run_id]
        if not self._active:
            self._has_runs.clear()

    async def renew_forever(self) -> None:
        """Renew all leases every third of their length. Without an active run no command is sent."""
        pause = self._lease_s / 3
        while True:
            await self._has_runs.wait()
            await self._pause(pause)
            pause = self._lease_s / 3 if await self._renew() else min(RETRY_S, self._lease_s / 10)

    def cancel(self, run_id: str) -> None:
        """Cancel a run if it is active here."""
        if active := self._active.get(run_id):
            active.stop(StopReason.CANCEL)
            self._has_cancelled.set()

    def interrupt(self, run_id: str) -> None:
        """Interrupt a run if it is active here."""
        if active := self._active.get(run_id):
            active.stop(StopReason.INTERRUPT)

    async def _pause(self, seconds: float) -> None:
        """Wait; after a cancel for CANCELLED_S at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                # Set also by a cancel during the last renewal, which Redis may have executed before the cancel.
                await self._has_cancelled.wait()
                self._has_cancelled.clear()
                await asyncio.sleep(CANCELLED_S)

    async def _renew(self) -> bool:
        """Renew the leases of all active runs; return False if no reply arrived in time."""
        # A run whose lease is lost belongs to its next owner: its work is only being cleaned up here.
        runs = [run for run in self.runs() if run.stop_reason is not StopReason.LOST]
        if not runs:
            return True
        sent_at = time.monotonic()
        remaining_s = min(run.valid_until for run in runs) - sent_at
        # The deadline leaves time for another renewal before the first lease expires.
        timeout_s = max(RETRY_S, min(remaining_s / 2, self._lease_s / 3))
        try:
            async with asyncio.timeout(timeout_s):
                replies = await self._store.renew([run.lease for run in runs], lease_ms=int(self._lease_s * 1000))
        except (StoreUnavailable, StoreRejected, TimeoutError) as exc:
            reason = str(exc) or f"no reply within {timeout_s:.1f} s"
            metrics.RENEWALS_FAILED.inc()
            log("lease.renew_failed", level=logging.WARNING, runs=len(runs), reason=reason)
            self._stop_expired()
            return False
        self.heartbeat.record()
        for run, reply in zip(runs, replies, strict=True):
            if reply.outcome is Outcome.OK:
                run.extend(sent_at)
            run.apply_reply(reply)
        return True

    def _stop_expired(self) -> None:
        """Stop the runs whose leases have expired by the local clock: another worker may own them already."""
        now = time.monotonic()
        for run in self.runs():
            if now >= run.valid_until:
                run.stop(StopReason.LOST)
