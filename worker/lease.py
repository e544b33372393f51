"""The runs that this worker holds: their leases renewed together, their tasks stopped when a lease is lost."""

import asyncio
import time
from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from infra.contract.errors import LeaseLost, StoreUnavailable
from infra.contract.queue import Lease, LeaseReply
from infra.contract.redis_store.work_queue import WorkQueue
from infra.contract.states import Outcome
from infra.logging import log
from worker.health import Pulse

RECONNECT_S = 1.0
"""A renewal that failed is sent again after so long at most, and has at least so long to be answered."""


class Stop(StrEnum):
    """Why the work on a run was stopped from outside."""

    CANCEL = "cancel"
    LOST = "lost"
    DRAIN = "drain"


class ActiveRun:
    """A run held by this worker. `draining` asks it to stop at the next step boundary; `left` says that it is over."""

    def __init__(self, lease: Lease, lease_s: float) -> None:
        self.lease = lease
        self.stopped: Stop | None = None
        self.draining = False
        self.left = asyncio.Event()
        self._lease_s = lease_s
        self._work: asyncio.Task[Any] | None = None
        self.valid_until = time.monotonic() + lease_s

    def attach(self, work: asyncio.Task[Any]) -> None:
        """Name the task that `stop` cancels; at once if the stop came first."""
        self._work = work
        if self.stopped:
            work.cancel()

    def stop(self, reason: Stop) -> None:
        """Cancel the work. A lost lease overrides other reasons: then nothing more may be written."""
        first = self.stopped is None
        if first or reason is Stop.LOST:
            self.stopped = reason
        if first and self._work:
            self._work.cancel()

    def held(self, held: LeaseReply) -> None:
        """Act on what an emit or a renewal answered."""
        if held.outcome in {Outcome.LOST, Outcome.GONE}:
            self.stop(Stop.LOST)
        elif held.cancel:
            self.stop(Stop.CANCEL)

    def check(self) -> None:
        """Raise LeaseLost if the lease has ended for all that is known here: this process may have stood still."""
        if time.monotonic() >= self.valid_until:
            self.stop(Stop.LOST)
            raise LeaseLost(f"the lease of run {self.lease.run_id} was not renewed in time")

    def renewed(self, at: float) -> None:
        """The lease was renewed by a call that was sent at `at`, seconds of the monotonic clock."""
        self.valid_until = at + self._lease_s


class LeaseKeeper:
    """Knows the active runs and renews their leases."""

    def __init__(self, store: WorkQueue, lease_s: float) -> None:
        self._store = store
        self._lease_s = lease_s
        self.pulse = Pulse()
        self._active: dict[str, ActiveRun] = {}
        self._some = asyncio.Event()

    def __len__(self) -> int:
        return len(self._active)

    def runs(self) -> Iterable[ActiveRun]:
        """The active runs, safe against changes while iterating."""
        return list(self._active.values())

    def add(self, active: ActiveRun) -> ActiveRun | None:
        """Keep the lease of a run from now on; its former owner, if that was this worker too, which is stopped."""
        former = self._active.get(active.lease.run_id)
        if former:
            former.stop(Stop.LOST)
        self._active[active.lease.run_id] = active
        self._some.set()
        return former

    def remove(self, active: ActiveRun) -> None:
        """The run is not ours any more."""
        active.left.set()
        if self._active.get(active.lease.run_id) is active:
            del self._active[active.lease.run_id]
        if not self._active:
            self._some.clear()

    async def renew_forever(self) -> None:
        """Renew all leases at a third of their length; costs nothing while there is no run."""
        pause = self._lease_s / 3
        while True:
            await self._some.wait()
            await asyncio.sleep(pause)
            pause = self._lease_s / 3 if await self._renew() else min(RECONNECT_S, self._lease_s / 10)

    def cancel(self, run_id: str) -> None:
        """Stop a run if it is one of ours."""
        if active := self._active.get(run_id):
            active.stop(Stop.CANCEL)

    async def _renew(self) -> bool:
        """Whether there was an answer. It is awaited so long that there is time to ask again before a lease ends.

        What is lost already is left to its next owner.
        """
        runs = [run for run in self.runs() if run.stopped is not Stop.LOST]
        if not runs:
            return True
        sent = time.monotonic()
        left_s = min(run.valid_until for run in runs) - sent
        try:
            async with asyncio.timeout(max(RECONNECT_S, min(left_s / 2, self._lease_s / 3))):
                answers = await self._store.renew([run.lease for run in runs], lease_ms=int(self._lease_s * 1000))
        except (StoreUnavailable, TimeoutError) as exc:
            log("lease.unrenewed", runs=len(runs), reason=str(exc) or "no answer in time")
            self._stop_expired()
            return False
        self.pulse.beat()
        for run, held in zip(runs, answers, strict=True):
            if held.outcome is Outcome.OK:
                run.renewed(sent)
            run.held(held)
        return True

    def _stop_expired(self) -> None:
        """Another worker may own a run whose lease could not be renewed in time: stop working on it."""
        now = time.monotonic()
        for run in self.runs():
            if now >= run.valid_until:
                run.stop(Stop.LOST)
