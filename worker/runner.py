"""Takes one claimed run to an outcome: finished, released, waiting, or abandoned because the lease is lost."""

import asyncio
from contextlib import suppress
from enum import StrEnum

from msgspec import structs
from opentelemetry.trace import Span

from infra import metrics
from infra.contract.errors import (
    ExecutorUnavailable,
    FilesUnavailable,
    HostExhausted,
    StoreRejected,
    StoreUnavailable,
)
from infra.contract.execution import Executor
from infra.contract.queue import Claim, Lease, Writes
from infra.contract.redis_store.reader import UNDECODABLE
from infra.contract.redis_store.work_queue import WorkQueue
from infra.contract.runs import RunError
from infra.contract.states import Outcome, Status
from infra.logging import log
from worker.continuation import take_over
from worker.fork import inherit
from worker.inputs import copy_inputs
from worker.lease import ActiveRun, StopReason
from worker.run.archiver import Archiver
from worker.run.context import RunContext
from worker.run.emitter import LogEmitter
from worker.run.executions import RunExecutions
from worker.run.retrying import until_answered
from worker.run.session import RunSession
from worker.run.strategy import StepFailed, Strategy
from worker.settings import LOG_WINDOW_S
from worker.tracing import end_run, run_span
from worker.verdict import UNREAD_MESSAGE, Finish, Release, Unable, Verdict, Wait, last_event, name_of, verdict_of
from worker.workspaces import RunWorkspaces


class Lack(StrEnum):
    """Thing of which the failure of a run says that this worker lacks it: the next run may fail in the same way."""

    RESOURCE = "resource"
    STORE = "store"
    PROGRAM = "program"


_LACKS: dict[type[BaseException | None], Lack] = {
    HostExhausted: Lack.RESOURCE,
    FilesUnavailable: Lack.STORE,
    ExecutorUnavailable: Lack.PROGRAM,
}


class Runner:
    """Works on claimed runs with one strategy, one executor and one source of workspaces.

    `log_window_s` is the time in which log events wait for others (see LogEmitter).
    """

    def __init__(
        self,
        store: WorkQueue,
        workspaces: RunWorkspaces,
        executor: Executor,
        strategy: Strategy,
        *,
        log_window_s: float = LOG_WINDOW_S,
    ) -> None:
        self._store = store
        self._workspaces = workspaces
        self._executor = executor
        self._strategy = strategy
        self._log_window_s = log_window_s

    async def run(self, claim: Claim, active: ActiveRun) -> Lack | None:
        """Work on the run until it has an outcome, and write that outcome. Never raises an error of the work.

        Returns what this worker lacked for the work.
        """
        with run_span(claim.run) as span:
            return await self._run(claim, active, span)

    async def _run(self, claim: Claim, active: ActiveRun, span: Span) -> Lack | None:
        run = claim.run
        archiver = Archiver(self._store, self._workspaces.logs, claim)
        emitter = LogEmitter(self._store, active.lease, active.apply_reply, archiver, self._log_window_s)
        files = self._workspaces.run(run.user, run.id, run.fence, claim.files, claim.folders)
        try:
            executions = RunExecutions(claim, emitter, self._executor, active.continues_elsewhere)
            session = RunSession.of(claim, self._executor)
        except UNDECODABLE:
            await emitter.abandon()
            await self.fail_unreadable(active.lease)
            return None
        context = RunContext(claim, emitter, files, executions, session, active.check_lease)
        # A separate task, so that `active.stop` cancels the work while this method continues and writes the outcome.
        work = asyncio.create_task(self._work(context, active), name=f"work {run.id}")
        active.attach(work)
        # The cancel may have been requested before the claim, when the control channel had no owner to reach.
        if run.cancel:
            active.stop(StopReason.CANCEL)
        elif run.interrupt:
            active.stop(StopReason.INTERRUPT)
        try:
            await asyncio.wait({work})
            verdict = verdict_of(work, active, run, context.unable)
            if verdict is None:
                await emitter.abandon()
                end_run(span, "abandoned", None)
                metrics.attempt_ended("lost")
                log("run.abandoned", run_id=run.id, fence=run.fence)
            else:
                verdict, outcome, events = await self._write(active, emitter, context, verdict)
                end_run(span, name_of(verdict), getattr(verdict, "error", None))
                if outcome in {Outcome.OK, Outcome.SAME}:
                    await executions.discard(also_open=not isinstance(verdict, Release))
                if isinstance(verdict, Finish):
                    await archiver.finish(events)
        finally:
            work.cancel()
            await emitter.abandon()
            await archiver.abandon()
            await self._executor.release(run.id)
        return None if work.cancelled() else _LACKS.get(type(work.exception()))

    def end_unowned(self, run_id: str | None) -> None:
        """End what is left of the programs of a run that has ended without an owner, or of all such runs."""
        self._executor.end_unowned(run_id)

    async def fail_unreadable(self, lease: Lease) -> None:
        """Fail a run whose record cannot be decoded. If Redis does not reply, its next owner does so."""
        log("run.unreadable", run_id=lease.run_id, fence=lease.fence)
        message = "the stored record of the run cannot be decoded by this worker; this is a bug"
        verdict = Finish(Status.FAILED, error=RunError(code="unreadable_record", message=message))
        writes = Writes(events=[last_event(verdict)])
        # A record may be damaged in such a way that it cannot be ended either: the next claims set it aside.
        with suppress(StoreUnavailable, StoreRejected):
            outcome = await self._store.finish(lease, verdict.status, writes, error=verdict.error)
            if outcome in {Outcome.OK, Outcome.SAME}:
                metrics.run_ended(verdict.status.value, "unreadable_record")

    async def _work(self, context: RunContext, active: ActiveRun) -> dict[str, object]:
        run = context.run
        deadline = asyncio.timeout(run.spec.timeout_s)
        try:
            async with deadline:
                await copy_inputs(context, self._workspaces)
                if run.spec.fork_of:
                    await inherit(context, run.spec.fork_of, self._store, self._workspaces)
                if run.spec.continue_of:
                    await take_over(context, run.spec.continue_of, self._store, self._workspaces)
                return await self._strategy.work(context, lambda: active.draining)
        except TimeoutError:
            # A TimeoutError of a tool is not the timeout of the run.
            if not deadline.expired():
                raise
            message = f"the run took longer than its timeout of {run.spec.timeout_s:g} s (`timeout_s` of the run)"
            raise StepFailed(RunError(code="timeout", message=message)) from None
        finally:
            # Before the outcome is written: nothing of a run that has ended or waits may still act.
            await context.session.close()

    async def _write(
        self, active: ActiveRun, emitter: LogEmitter, context: RunContext, verdict: Verdict
    ) -> tuple[Verdict, Outcome, int]:
        """Write the outcome together with the buffered events; return it, the reply, and the number of these events."""
        writes, run = await emitter.close(), context.run
        outcome = await self._store_outcome(active.lease, writes, verdict, context.last_message)
        if outcome is Outcome.REFUSED and not isinstance(verdict, Release):
            # Of a run that was to wait: a cancel was requested that has not reached this worker; nobody would end the
            # waiting run. Of one that has succeeded: a message has come that its strategy has not read.
            waits = isinstance(verdict, Wait)
            verdict = Finish(Status.CANCELLED) if waits else UNREAD_MESSAGE
            outcome = await self._store_outcome(active.lease, writes, verdict, context.last_message)
        error = verdict.error if isinstance(verdict, Finish) else None
        metrics.outcome_written(outcome, name_of(verdict), error)
        log("run.outcome_written", run_id=run.id, fence=run.fence, verdict=name_of(verdict), outcome=outcome.value)
        return verdict, outcome, len(writes.events) + 1

    async def _store_outcome(self, lease: Lease, buffered: Writes, verdict: Verdict, read: int) -> Outcome:
        if isinstance(verdict, Wait):
            requests = verdict.requests
            return await until_answered(lambda: self._store.wait(lease, buffered, requests))
        writes = structs.replace(buffered, events=[*buffered.events, last_event(verdict)])

        async def write() -> Outcome:
            if isinstance(verdict, Unable):
                return await self._store.release_unable(lease, writes, delay_ms=verdict.delay_ms)
            if verdict is UNREAD_MESSAGE:
                return await self._store.release_for_message(lease, writes)
            if isinstance(verdict, Release):
                delay_ms, burn = verdict.delay_ms, verdict.burn
                return await self._store.release(lease, writes, delay_ms=delay_ms, burn=burn)
            return await self._store.finish(
                lease, verdict.status, writes, result=verdict.result, error=verdict.error, read=read
            )

        return await until_answered(write)
