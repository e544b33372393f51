"""Takes one claimed run to an outcome: ended, given back, or left to its new owner."""

import asyncio
import logging
import random
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import cast

from msgspec import UNSET

from infra.contract.errors import FilesUnavailable, HostExhausted, LeaseLost, StoreUnavailable
from infra.contract.events import Failure, RunEnd, RunFinished, RunRequeued
from infra.contract.execution import Executor
from infra.contract.log import NewEvent
from infra.contract.queue import Claim, Lease, Writes
from infra.contract.redis_store.work_queue import WorkQueue
from infra.contract.runs import RunError, RunRecord
from infra.contract.states import Outcome, Status
from infra.logging import log
from worker.fork import inherit
from worker.lease import ActiveRun, Stop
from worker.run.archiver import Archiver
from worker.run.context import RunContext
from worker.run.emitter import LogEmitter, new_event
from worker.run.retrying import until_answered
from worker.run.strategy import Drained, StepFailed, Strategy
from worker.workspaces import Workspaces

MAX_BACKOFF_S = 60.0


@dataclass(frozen=True)
class Ended:
    """The run is over."""

    status: Status
    result: Mapping[str, object] | None = None
    error: RunError | None = None


@dataclass(frozen=True)
class GivenBack:
    """Somebody shall go on with the run, at once or after a delay. `burn`: the attempt counts."""

    reason: str
    delay_ms: int
    burn: bool


class Runner:
    """Runs claimed runs; holds what all of them share."""

    def __init__(self, store: WorkQueue, workspaces: Workspaces, executor: Executor, strategy: Strategy) -> None:
        self._store = store
        self._workspaces = workspaces
        self._executor = executor
        self._strategy = strategy

    async def run(self, claim: Claim, active: ActiveRun) -> bool:
        """Work on the run until it has an outcome, and write that outcome. Never raises what the work raised.

        Answers whether this host was too short of something to do the work: the next run would fare no better.
        """
        run = claim.run
        archiver = Archiver(self._store, self._workspaces.logs, claim)
        emitter = LogEmitter(self._store, active.lease, active.held, archiver)
        files = self._workspaces.run(run.user, run.id, run.fence, claim.files)
        context = RunContext(claim, emitter, files, self._executor, active.check)
        work = asyncio.create_task(self._work(context, active), name=f"work {run.id}")
        active.attach(work)
        if run.cancel:
            active.stop(Stop.CANCEL)
        try:
            await asyncio.wait({work})
            verdict = _verdict(work, active, run)
            if verdict is None:
                await emitter.abandon()
                log("run.abandoned", run_id=run.id, fence=run.fence)
            else:
                events = await self._write(active, emitter, run, verdict)
                if isinstance(verdict, Ended):
                    await archiver.finish(events)
        finally:
            work.cancel()
            await emitter.abandon()
            await archiver.abandon()
            await self._executor.release(run.id)
        return not work.cancelled() and isinstance(work.exception(), HostExhausted)

    async def refuse(self, lease: Lease) -> None:
        """End a run whose record cannot be read. Without an answer the next owner does, once the lease is over."""
        log("run.unreadable", run_id=lease.run_id, fence=lease.fence)
        message = "the record of the run cannot be read; this is a bug"
        verdict = Ended(Status.FAILED, error=RunError(code="unreadable_record", message=message))
        writes = Writes(events=[_last_event(verdict)])
        with suppress(StoreUnavailable):
            await self._store.finish(lease, verdict.status, writes, error=verdict.error)

    async def _work(self, context: RunContext, active: ActiveRun) -> dict[str, object]:
        run = context.run
        deadline = asyncio.timeout(run.spec.timeout_s)
        try:
            async with deadline:
                if run.spec.fork_of:
                    await inherit(context, run.spec.fork_of, self._store, self._workspaces)
                return await self._strategy.work(context, lambda: active.draining)
        except TimeoutError:
            if not deadline.expired():
                raise
            message = f"the run took longer than its timeout of {run.spec.timeout_s:g} s"
            raise StepFailed(RunError(code="timeout", message=message)) from None

    async def _write(self, active: ActiveRun, emitter: LogEmitter, run: RunRecord, verdict: Ended | GivenBack) -> int:
        """Write the outcome, with what is left of the log; so many events that was."""
        writes = await emitter.close()
        lease = active.lease
        writes.events.append(_last_event(verdict))

        async def write() -> Outcome:
            if isinstance(verdict, GivenBack):
                delay_ms, burn = verdict.delay_ms, verdict.burn
                return await self._store.release(lease, writes, delay_ms=delay_ms, burn=burn)
            return await self._store.finish(lease, verdict.status, writes, result=verdict.result, error=verdict.error)

        outcome = await until_answered(write)
        name = verdict.reason if isinstance(verdict, GivenBack) else verdict.status.value
        log("run.left", run_id=run.id, fence=run.fence, verdict=name, outcome=outcome.value)
        return len(writes.events)


def _last_event(verdict: Ended | GivenBack) -> NewEvent:
    if isinstance(verdict, GivenBack):
        return new_event(RunRequeued(reason=verdict.reason, delay_ms=verdict.delay_ms))
    error = verdict.error
    failure = Failure(code=error.code, message=error.message, step=error.step) if error else UNSET
    return new_event(RunFinished(status=cast("RunEnd", verdict.status.value), error=failure))


def _verdict(work: "asyncio.Task[dict[str, object]]", active: ActiveRun, run: RunRecord) -> Ended | GivenBack | None:
    """What the end of the work means; None if the run is not ours any more."""
    if active.stopped is Stop.LOST:
        return None
    failure = None if work.cancelled() else work.exception()
    if active.stopped is Stop.CANCEL and (work.cancelled() or failure):
        return Ended(Status.CANCELLED)
    if work.cancelled():
        return GivenBack("drained", 0, burn=False)
    match failure:
        case None:
            return Ended(Status.SUCCEEDED, result=work.result())
        case LeaseLost():
            return None
        case Drained():
            return GivenBack("drained", 0, burn=False)
        case StepFailed():
            return Ended(Status.FAILED, error=failure.error)
        case FilesUnavailable():
            return _put_off("files_unavailable", failure, run)
        case HostExhausted():
            return _put_off("worker_short", failure, run)
        case _:
            log("run.broken", run_id=run.id, fence=run.fence, error=failure)
            message = f"the worker met an unexpected {type(failure).__name__}; its log tells more"
            return Ended(Status.FAILED, error=RunError(code="internal_error", message=message))


def _put_off(code: str, failure: Exception, run: RunRecord) -> Ended | GivenBack:
    """What passes by itself: the run is tried again later, unless this was its last attempt."""
    log("run.put_off", level=logging.WARNING, run_id=run.id, fence=run.fence, code=code, reason=str(failure))
    if run.attempt < run.spec.max_attempts:
        return GivenBack(code, _backoff_ms(run.attempt), burn=True)
    return Ended(Status.FAILED, error=RunError(code=code, message=str(failure)))


def _backoff_ms(attempt: int) -> int:
    """Exponential backoff with full jitter, in ms."""
    return int(random.uniform(0, min(MAX_BACKOFF_S, 2.0**attempt)) * 1000)  # noqa: S311
