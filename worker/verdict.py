"""Verdicts: what follows for a run from the end of the work on it."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

from msgspec import UNSET

from infra.contract.errors import ContractError, ExecutorUnavailable, FilesUnavailable, HostExhausted, LeaseLost
from infra.contract.events import Failure, RunEnd, RunFinished, RunRequeued
from infra.contract.log import NewEvent
from infra.contract.requests import OpenRequest
from infra.contract.runs import RunError, RunRecord
from infra.contract.states import Status
from infra.logging import log
from worker.lease import ActiveRun, StopReason
from worker.run.emitter import new_event
from worker.run.people import Waits, interrupt_request
from worker.run.retrying import requeue_delay_ms
from worker.run.strategy import Postponed, StepFailed


@dataclass(frozen=True)
class Finish:
    """Outcome: the run ends with a terminal status."""

    status: Status
    result: Mapping[str, object] | None = None
    error: RunError | None = None


@dataclass(frozen=True)
class Release:
    """Outcome: the run returns to the queue, ready after `delay_ms`. `burn`: whether the attempt counts."""

    reason: str
    delay_ms: int
    burn: bool
    message: str | None = None


@dataclass(frozen=True, kw_only=True)
class Unable(Release):
    """Outcome: the run returns to the queue for another worker, because this one lacks what `message` names."""


@dataclass(frozen=True)
class Wait:
    """Outcome: the run waits for people to answer these requests."""

    requests: Sequence[OpenRequest]


Verdict: TypeAlias = Finish | Release | Wait
UNREAD_MESSAGE = Release("message", 0, burn=False)
"""Outcome: the run was to succeed, and returns to the queue, because it has a message that it has not read."""
UNABLE_DELAY_MS = 500
"""Delay before a run that a worker was unable to execute is tried again; doubled for each further one in a row."""
_TRANSIENT: dict[type[ContractError], str] = {
    FilesUnavailable: "files_unavailable",
    HostExhausted: "worker_short",
}
"""Error codes of failures that another attempt may not meet."""


def name_of(verdict: Verdict) -> str:
    """Return a status, or the reason why the run returns to the queue."""
    if isinstance(verdict, Wait):
        return "waiting"
    return verdict.reason if isinstance(verdict, Release) else verdict.status.value


def last_event(verdict: Finish | Release) -> NewEvent:
    """Return the event with which the log of the attempt ends."""
    if isinstance(verdict, Release):
        message = UNSET if verdict.message is None else verdict.message
        return new_event(RunRequeued(reason=verdict.reason, delay_ms=verdict.delay_ms, message=message))
    error = verdict.error
    failure = Failure(code=error.code, message=error.message, step=error.step) if error else UNSET
    return new_event(RunFinished(status=cast("RunEnd", verdict.status.value), error=failure))


def verdict_of(
    work: "asyncio.Task[dict[str, object]]", active: ActiveRun, run: RunRecord, unable: int
) -> Verdict | None:
    """Return the outcome that follows from the end of the work; None if the lease is lost, so none may be written.

    `unable`: number of workers before this one, in a row, that were unable to execute the step.
    """
    failure = None if work.cancelled() else work.exception()
    if active.stop_reason is StopReason.LOST or isinstance(failure, LeaseLost):
        return None
    # Work that succeeded before the cancel reached it stays succeeded.
    if active.stop_reason is StopReason.CANCEL and (work.cancelled() or failure):
        return Finish(Status.CANCELLED)
    if work.cancelled():
        interrupted = active.stop_reason is StopReason.INTERRUPT
        return Wait([interrupt_request(run.id, run.fence)]) if interrupted else Release("drained", 0, burn=False)
    match failure:
        case None:
            return Finish(Status.SUCCEEDED, result=work.result())
        case Waits():
            return Wait(failure.requests)
        case StepFailed():
            return Finish(Status.FAILED, result=failure.result, error=failure.error)
        case Postponed():
            return Release(failure.reason, failure.delay_ms, failure.burn, str(failure) or None)
        case FilesUnavailable() | HostExhausted():
            return _retry_or_fail(failure, run)
        case ExecutorUnavailable():
            _log_failure("unable", failure, run)
            return Unable("unable", UNABLE_DELAY_MS << unable, burn=False, message=str(failure))
        case _:
            log("run.broken", level=logging.ERROR, run_id=run.id, fence=run.fence, error=failure)
            # The message of an unknown exception may hold internals, so the client is given its type alone.
            message = f"unexpected {type(failure).__name__} in the worker; its log has the details (action run.broken)"
            return Finish(Status.FAILED, error=RunError(code="internal_error", message=message))


def _retry_or_fail(failure: FilesUnavailable | HostExhausted, run: RunRecord) -> Verdict:
    """Release the run with a delay after a transient failure that the run did not cause; fail its last attempt."""
    code = _TRANSIENT[type(failure)]
    _log_failure(code, failure, run)
    if run.attempt < run.spec.max_attempts:
        return Release(code, requeue_delay_ms(run.attempt), burn=True)
    return Finish(Status.FAILED, error=RunError(code=code, message=str(failure)))


def _log_failure(code: str, failure: Exception, run: RunRecord) -> None:
    log("run.host_failure", level=logging.WARNING, run_id=run.id, fence=run.fence, code=code, reason=str(failure))
