"""Reaper of Jobs that no run owns any more. Each worker process has one.

A Job is an orphan if its run has no open execution of its number. That is certain, because an execution is journaled as
open before its Job is created, and numbers are never used twice: a run that does not name the Job now never will again.

Orphans are looked for in rounds, and at once for a run that is known to have ended without an owner. Each
worker may hear of that and look: a Job is deleted once, and the others find it gone.
The Job of a session is an orphan if its claim of the run is over: no later owner continues a session.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress

from infra import metrics
from infra.contract.errors import ContractError, ExecutorUnavailable, StoreUnavailable
from infra.k8s_executor.api import KubeApi
from infra.k8s_executor.job import EXECUTION, FENCE, INSTALLATION_LABEL, MANAGED, RUN, RUN_LABEL, run_label
from infra.k8s_executor.views import JobView
from infra.logging import log

INTERVAL_S = 60.0
"""Mean pause between two rounds."""
MAX_ROUND = 500
"""Jobs in one round. Each one costs a command of Redis."""
SPREAD_S = 0.3
"""Spread of the workers that have heard of the end of the same run, so that most of them find its Job deleted."""
TRY_S = 3.0
PAUSE_S = 1.0
"""Time limit for a look at one run, and pause before it is repeated, for as long as an answer is missing."""
MAX_ASKED = 1000
"""Runs to be looked at. With more of them, a round looks at all runs."""

OpenNumber = Callable[[str], Awaitable[int | None]]
"""Function that returns the number of the open execution of a run, None if it has none or is gone. It may raise
ContractError if that is not known."""
RunningFence = Callable[[str], Awaitable[int | None]]
"""Function that returns the fence of the claim under which a run is being worked on, None if it is not. It may raise
ContractError."""


class Reaper:
    """Reaper of the Jobs of one installation. `own` are the names of Jobs that this process works on."""

    def __init__(
        self,
        api: KubeApi,
        installation: str,
        open_number: OpenNumber,
        running_fence: RunningFence,
        own: Collection[str],
    ) -> None:
        self._api = api
        self._labels = {**MANAGED, INSTALLATION_LABEL: installation}
        self._open_number = open_number
        self._running_fence = running_fence
        self._own = own
        self._asked: set[str | None] = set()
        self._has_asked = asyncio.Event()

    def ask(self, run_id: str | None) -> None:
        """Let `answer` look for orphans of a run; None: of all runs."""
        self._asked.add(run_id if len(self._asked) < MAX_ASKED else None)
        self._has_asked.set()

    async def run(self) -> None:
        """Delete orphans in rounds until cancelled."""
        while True:
            # At random, so that the workers of an installation do not ask together.
            await asyncio.sleep(INTERVAL_S * random.uniform(0.5, 1.5))  # noqa: S311
            try:
                await self.reap()
            except Exception as error:  # noqa: BLE001 - the next round may succeed
                _failed(error)

    async def answer(self) -> None:
        """Delete the orphans of the runs named by `ask`, until cancelled. A look that fails is repeated."""
        while True:
            await self._has_asked.wait()
            await asyncio.sleep(random.uniform(0, SPREAD_S))  # noqa: S311
            self._has_asked.clear()
            asked, self._asked = self._asked, set()
            # Single runs first: a look at all of them takes longer.
            ordered = sorted(asked, key=lambda run_id: run_id is None)
            failed = [run_id for run_id in ordered if not await self._answered(run_id)]
            if failed:
                await asyncio.sleep(PAUSE_S)
            for run_id in failed:
                self.ask(run_id)

    async def reap(self, *, patience_s: float | None = None) -> int:
        """Delete all orphans; return their number. `patience_s` 0: one try. Raises ApiUnreachable, ApiRefused."""
        # First the Jobs, then their runs: an execution that began in between is in neither.
        jobs = await self._jobs(self._labels, patience_s=patience_s)
        count = 0
        for job in random.sample(jobs, min(len(jobs), MAX_ROUND)):
            with suppress(StoreUnavailable):
                if await self._is_orphan(job):
                    await self._api.delete_job(job.metadata.name, job.metadata.uid, patience_s=patience_s)
                    count += 1
                    metrics.REAPED.inc()
        if count:
            log("cluster.reaped", count=count)
        return count

    async def _answered(self, run_id: str | None) -> bool:
        """Delete the orphans of a run; return False if the API server or Redis did not answer."""
        try:
            if run_id is None:
                await self.reap(patience_s=0)
                return True
            async with asyncio.timeout(TRY_S):
                await self._reap_run(run_id)
        except (ExecutorUnavailable, StoreUnavailable, TimeoutError):
            return False
        except Exception as error:  # noqa: BLE001 - the round that comes looks again
            _failed(error)
        return True

    async def _reap_run(self, run_id: str) -> None:
        for job in await self._jobs({**self._labels, RUN_LABEL: run_label(run_id)}, patience_s=0):
            if await self._is_orphan(job):
                await self._api.delete_job(job.metadata.name, job.metadata.uid, patience_s=0)
                log("execution.unowned_ended", run_id=run_id, job=job.metadata.name)

    async def _jobs(self, labels: Mapping[str, str], *, patience_s: float | None = None) -> list[JobView]:
        """Return the Jobs that exist, without those that this process works on."""
        found = await self._api.jobs(labels, patience_s=patience_s)
        return [job for job in found if not job.metadata.deletion_timestamp and job.metadata.name not in self._own]

    async def _is_orphan(self, job: JobView) -> bool:
        """Return whether no run owns the Job. Raises StoreUnavailable."""
        notes = job.metadata.annotations or {}
        run_id, number, fence = notes.get(RUN, ""), notes.get(EXECUTION, ""), notes.get(FENCE, "")
        if job.metadata.name in self._own:
            return False
        try:
            if run_id and fence.isdecimal():
                return await self._running_fence(run_id) != int(fence)
            if run_id and number.isdecimal():
                return await self._open_number(run_id) != int(number)
        except StoreUnavailable:
            raise
        except ContractError:
            return False
        # No worker makes a Job without these annotations, so somebody has copied the labels. It is not ours to delete.
        return False


def _failed(error: Exception) -> None:
    reason = str(error) if isinstance(error, ContractError) else repr(error)
    log("cluster.reap_failed", level=logging.WARNING, reason=reason)
