"""Pulls runs and drains: blocks for a wake token, claims what is ready, starts it."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol

from infra.contract.errors import StoreUnavailable
from infra.contract.models import Claim
from infra.contract.store import Lease, RunStore
from infra.logging import log
from worker.lease import ActiveRun, LeaseKeeper, Stop
from worker.runner import Runner
from worker.settings import WorkerSettings

MAX_BLOCK_S = 240.0
"""The longest sleep without a look at the queue: bounds what a wake token lost with a dying worker can delay."""
MIN_BLOCK_S = 0.01
RECONNECT_S = 0.5


class WakeTokens(Protocol):
    """Blocks for wake tokens."""

    async def wait_token(self, key: str, timeout_s: float) -> bool:
        """Take a token of the list, waiting at most `timeout_s`. Raises StoreUnavailable."""
        ...


class WorkerLoop:
    """One worker: `run` until `drain` was called and every run has been left."""

    def __init__(
        self, settings: WorkerSettings, store: RunStore, tokens: WakeTokens, keeper: LeaseKeeper, runner: Runner
    ) -> None:
        self._settings = settings
        self._store = store
        self._tokens = tokens
        self._keeper = keeper
        self._runner = runner
        self._draining = asyncio.Event()
        self._hurry = asyncio.Event()
        self._slot_freed = asyncio.Event()
        self._runs: set[asyncio.Task[None]] = set()

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
            sides = [group.create_task(self._keeper.renew_forever()), group.create_task(self._keeper.listen_forever())]
            await self._pull()
            await self._leave()
            for side in sides:
                side.cancel()

    async def _pull(self) -> None:
        block_s = 0.0
        while not self._draining.is_set():
            free = self._settings.slots - len(self._runs)
            if free <= 0:
                self._slot_freed.clear()
                await self._first(self._slot_freed.wait(), self._draining.wait())
                continue
            if block_s > 0 and not await self._woken(block_s):
                return
            block_s = await self._claim()

    async def _woken(self, block_s: float) -> bool:
        """Sleep until a token comes or the time is over; False once draining has begun."""
        await self._first(self._take_token(block_s), self._draining.wait())
        if not self._draining.is_set():
            return True
        # The token of a pop that was cut off may be gone: a claim of nothing puts it back for the other workers.
        await self._repair()
        return False

    async def _take_token(self, block_s: float) -> None:
        try:
            await self._tokens.wait_token(self._store.keys.pending, block_s)
        except StoreUnavailable as exc:
            log("queue.unreachable", reason=str(exc))
            await asyncio.sleep(RECONNECT_S)

    async def _claim(self) -> float:
        """Claim for all free slots and start what was granted; how long to sleep afterwards, in seconds."""
        settings = self._settings
        wanted = settings.slots - len(self._runs)
        try:
            claimed = await self._store.claim(settings.name, wanted, lease_ms=settings.lease_ms)
        except StoreUnavailable as exc:
            log("queue.unreachable", reason=str(exc))
            await asyncio.sleep(RECONNECT_S)
            return 0.0
        for claim in claimed.claims:
            self._start(claim)
        if claimed.next_ms is None:
            return MAX_BLOCK_S
        return min(max(claimed.next_ms / 1000, MIN_BLOCK_S), MAX_BLOCK_S)

    def _start(self, claim: Claim) -> None:
        run = claim.run
        log("run.claimed", run_id=run.id, fence=run.fence, attempt=run.attempt)
        active = ActiveRun(Lease(run.id, run.fence), self._settings.lease_s)
        active.draining = self._draining.is_set()
        self._keeper.add(active)
        task = asyncio.create_task(self._runner.run(claim, active), name=f"run {run.id}")
        self._runs.add(task)

        def left(done: "asyncio.Task[None]") -> None:
            self._keeper.remove(active)
            self._runs.discard(done)
            self._slot_freed.set()
            if not done.cancelled() and (error := done.exception()):
                log("run.dropped", run_id=run.id, fence=run.fence, error=error)

        task.add_done_callback(left)

    async def _leave(self) -> None:
        """Wait for the runs within the grace period, then give the rest back."""
        log("worker.draining", runs=len(self._runs))
        if self._runs:
            await self._first(asyncio.wait(self._runs), self._hurry.wait(), timeout_s=self._settings.grace_s)
        for active in self._keeper.runs():
            active.stop(Stop.DRAIN)
        if self._runs:
            await asyncio.wait(self._runs)

    async def _repair(self) -> None:
        settings = self._settings
        try:
            await self._store.claim(settings.name, 0, lease_ms=settings.lease_ms)
        except StoreUnavailable as exc:
            log("queue.unreachable", reason=str(exc))

    @staticmethod
    async def _first(*waits: Coroutine[Any, Any, Any], timeout_s: float | None = None) -> None:
        """Wait until one of these is done, and end the others. Raises what the finished ones raised."""
        tasks = [asyncio.ensure_future(wait) for wait in waits]
        try:
            await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result
