"""Ends executions that nobody needs any more: tried in the background until the API server has confirmed it.

A program is dead once its pod has confirmed the cancellation, or once its Job is deleted, because the kubelet then ends
the pod. Both ways are tried, since either may fail to answer.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from infra.contract.errors import ContractError
from infra.k8s_executor.api import KubeApi
from infra.k8s_executor.control import PodControl, PodUnreachable
from infra.logging import log

TRY_S = 3.0
"""Time limit for one try of either way. With PAUSE_S it is below five seconds: an end must not wait longer once the API
server or the pod answers again."""
FIRST_PAUSE_S, PAUSE_S = 0.2, 1.0
"""Pause between two tries: doubled from the first to the last one."""
MAX_PENDING = 1000
"""Endings at the same time. Further ones are left to the deadlines of their Jobs, and to the reaper."""


@dataclass(frozen=True)
class Target:
    """Execution to end. `control` returns the control port of its pod, None if no program can be running in one."""

    job: str
    uid: str
    run_id: str
    bound_s: float
    control: Callable[[], PodControl | None]


class ExecutionEnding:
    """End of an execution, under way. `dead` is set once no program of the execution runs any more."""

    def __init__(self) -> None:
        self.dead = asyncio.Event()

    async def confirmed(self, timeout_s: float) -> bool:
        """Wait for `dead`, for at most `timeout_s`; return whether it is set."""
        # Not by asyncio.timeout, which does not work in a task that is being cancelled, before Python 3.12.
        waiting = asyncio.ensure_future(self.dead.wait())
        await asyncio.wait({waiting}, timeout=timeout_s)
        waiting.cancel()
        return self.dead.is_set()


class Endings:
    """Endings of one worker process."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False

    def begin(self, target: Target) -> ExecutionEnding:
        """End an execution in the background."""
        ending = ExecutionEnding()
        if len(self._tasks) < MAX_PENDING and not self._is_closed:
            task = asyncio.create_task(self._end(target, ending), name=f"end {target.job}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return ending

    async def settle(self, timeout_s: float) -> None:
        """Wait for the endings under way, for at most `timeout_s`, then stop for good."""
        self._is_closed = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _end(self, target: Target, ending: ExecutionEnding) -> None:
        """Repeat both ways until the Job is deleted, for at most the time for which its program may run."""
        reported, pause_s = False, FIRST_PAUSE_S
        with suppress(TimeoutError):
            async with asyncio.timeout(target.bound_s):
                while not await self._try(target, ending):
                    if not reported and not ending.dead.is_set():
                        log("execution.end_pending", level=logging.WARNING, run_id=target.run_id, job=target.job)
                        reported = True
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, PAUSE_S)
        if reported:
            log("execution.ended", run_id=target.run_id, job=target.job)

    async def _try(self, target: Target, ending: ExecutionEnding) -> bool:
        """Try both ways at the same time; return whether the Job is deleted."""
        _, deleted = await asyncio.gather(self._cancel(target, ending), self._delete(target))
        if deleted:
            ending.dead.set()
        return deleted

    async def _cancel(self, target: Target, ending: ExecutionEnding) -> None:
        control = None if ending.dead.is_set() else target.control()
        if control:
            with suppress(PodUnreachable, TimeoutError):
                async with asyncio.timeout(TRY_S):
                    await control.cancel(TRY_S)
                    ending.dead.set()

    async def _delete(self, target: Target) -> bool:
        try:
            async with asyncio.timeout(TRY_S):
                await self._api.delete_job(target.job, target.uid, patience_s=0)
        except (ContractError, TimeoutError):
            return False
        return True
