"""Reaper of Jobs that no run owns any more. Each worker process has one.

A Job is an orphan if its run has no open execution of its number. That is certain, because an execution is journaled as
open before its Job is created, and numbers are never used twice: a run that does not name the Job now never will again.

The Job of a session is an orphan if its claim of the run is over: no later owner continues a session.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress

from infra.contract.errors import ContractError
from infra.k8s_executor.api import KubeApi
from infra.k8s_executor.job import EXECUTION, FENCE, INSTALLATION_LABEL, MANAGED, RUN
from infra.k8s_executor.views import JobView
from infra.logging import log

INTERVAL_S = 60.0
"""Mean pause between two rounds."""
MAX_ROUND = 500
"""Jobs in one round. Each one costs a command of Redis."""

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

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            # At random, so that the workers of an installation do not ask together.
            await asyncio.sleep(INTERVAL_S * random.uniform(0.5, 1.5))  # noqa: S311
            try:
                await self.reap()
            except ContractError as error:
                log("cluster.reap_failed", level=logging.WARNING, reason=str(error))

    async def reap(self) -> int:
        """Delete all orphans; return their number. Raises ApiUnreachable, ApiRefused."""
        count = 0
        # First the Jobs, then their runs: an execution that began in between is in neither.
        jobs = [job for job in await self._api.jobs(self._labels) if not job.metadata.deletion_timestamp]
        for job in random.sample(jobs, min(len(jobs), MAX_ROUND)):
            if job.metadata.name not in self._own and await self._is_orphan(job):
                await self._api.delete_job(job.metadata.name, job.metadata.uid)
                count += 1
        if count:
            log("cluster.reaped", count=count)
        return count

    async def _is_orphan(self, job: JobView) -> bool:
        notes = job.metadata.annotations or {}
        run_id, number, fence = notes.get(RUN, ""), notes.get(EXECUTION, ""), notes.get(FENCE, "")
        with suppress(ContractError):
            if run_id and fence.isdecimal():
                return await self._running_fence(run_id) != int(fence)
            if run_id and number.isdecimal():
                return await self._open_number(run_id) != int(number)
        # No worker makes a Job without these annotations, so somebody has copied the labels. It is not ours to delete.
        return False
