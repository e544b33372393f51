"""Steps of a run: completed ones from its journal, the failed one from its record, the one under way from its log."""

from collections.abc import Sequence
from typing import Final

import msgspec

from edge_api import call_steps
from edge_api.http.response_models import Step, StepStatus
from edge_api.logs.filters import EventFilter
from edge_api.logs.pages import LogPages
from infra.contract import journal
from infra.contract.errors import FileMissing, FilesUnavailable, RecordUnreadable
from infra.contract.events import RunRequeued, RunResumed, RunRetried, RunStarted, StepFinished, StepStarted
from infra.contract.journal import BlobRef, CallOutcome, StepRecord, StepTimes
from infra.contract.log import Event
from infra.contract.redis_store.reader import RunReader
from infra.contract.runs import PlanStep, RunError, RunRecord
from infra.contract.states import Status

MAX_RESULT_BYTES: Final = 1024 * 1024
"""Most bytes of results in one list: Lambda allows 6 MB, and the text can become three times as long."""
_STATES: Final = EventFilter(
    types=frozenset(
        {RunStarted.TYPE, RunResumed.TYPE, RunRequeued.TYPE, RunRetried.TYPE, StepStarted.TYPE, StepFinished.TYPE}
    )
)
_ENDED: Final[dict[Status, StepStatus]] = {
    Status.RUNNING: "running",
    Status.FAILED: "failed",
    Status.CANCELLED: "cancelled",
}
"""Status of the step that was under way, by the status of its run."""


class RunSteps:
    """Reads the steps of runs. Methods raise StoreUnavailable, RunGone, RecordUnreadable."""

    def __init__(self, store: RunReader, pages: LogPages) -> None:
        self._store = store
        self._pages = pages

    async def list(self, run: RunRecord) -> list[Step]:
        """Return the steps of the run's plan, or the calls of its agent, in order."""
        if run.spec.plan is None:
            newest = await self._newest(run, 1, call_steps.NEWEST)
            return await call_steps.list_calls(self._store, run, newest, _ENDED.get(run.status), MAX_RESULT_BYTES)
        plan = run.spec.plan
        # The log before the journal: a step that the log names as under way may be completed when the journal is read,
        # but the steps before it are certainly in the journal.
        newest = await self._newest(run, 2, _STATES)
        entries = await self._store.step_entries(run.id, range(len(plan)))
        current = next((index for index, entry in enumerate(entries) if entry is None), None)
        steps = []
        size = 0
        for index, (step, entry) in enumerate(zip(plan, entries, strict=True)):
            about = _pending(index, step)
            if entry is not None:
                size += len(entry)
                steps.append(_completed(run.id, about, entry, with_result=size <= MAX_RESULT_BYTES))
            elif index == current:
                steps.append(_current(run, about, newest))
            else:
                steps.append(about)
        return steps

    async def stored(self, run: RunRecord, index: int) -> StepRecord | CallOutcome | BlobRef:
        """Return a completed step or call, or where it is stored. Raises FileMissing for any other."""
        if run.spec.plan is None:
            return await call_steps.stored_call(self._store, run, index)
        is_planned = index < len(run.spec.plan or ())
        (entry,) = await self._store.step_entries(run.id, [index]) if is_planned else [None]
        if entry is None:
            raise FileMissing(f"the run has no completed step {index}; steps are counted from 0")
        try:
            return journal.blob_ref(entry) or msgspec.json.decode(entry, type=StepRecord)
        except msgspec.DecodeError as exc:
            raise RecordUnreadable(f"the stored result of step {index} of run '{run.id}' cannot be read") from exc

    async def _newest(self, run: RunRecord, count: int, wanted: EventFilter) -> Sequence[Event]:
        """Return the last events that show what is under way; fewer if the log cannot be read or nothing can be."""
        if run.status not in _ENDED:
            return []
        try:
            return (await self._pages.backwards(await self._store.log(run.id), None, count, wanted)).events
        except FilesUnavailable:
            # The statuses and results of the other steps are known without the log.
            return []


def _pending(index: int, step: PlanStep) -> Step:
    return Step(
        index=index,
        name=step.name or step.tool,
        tool=step.tool,
        plan_step=None,
        status="pending",
        started_ms=None,
        duration_ms=None,
        result=None,
        kept=None,
        error=None,
    )


def _completed(run_id: str, about: Step, entry: bytes, *, with_result: bool) -> Step:
    kept = f"/agent/runs/{run_id}/steps/{about.index}"
    result = None
    error = None
    times = StepTimes()
    try:
        if ref := journal.blob_ref(entry):
            times = ref.times or times
        else:
            record = msgspec.json.decode(entry, type=StepRecord)
            times, result = record.times, record.result if with_result else None
    except msgspec.DecodeError:
        # The other steps are shown all the same.
        error = RunError(code="unreadable_record", message="the stored result of this step cannot be read")
    return msgspec.structs.replace(
        about,
        status="succeeded",
        started_ms=times.started_ms,
        duration_ms=times.duration_ms,
        result=result,
        kept=kept if result is None and error is None else None,
        error=error,
    )


def _current(run: RunRecord, about: Step, newest: Sequence[Event]) -> Step:
    """Return the first step that is not completed; it has begun if its start is newer than the run's."""
    status = _ENDED.get(run.status, "pending")
    finished = newest[-1] if newest and newest[-1].type == StepFinished.TYPE else None
    events = newest[:-1] if finished and finished.step == about.index else newest
    began = events[-1] if events and events[-1].type == StepStarted.TYPE and events[-1].step == about.index else None
    failed = run.error is not None and run.error.step == about.index
    if began is None and not failed:
        return about
    return msgspec.structs.replace(
        about,
        status=status,
        started_ms=began.ts if began else None,
        duration_ms=finished.data.get("duration_ms") if finished and events is not newest else None,
        error=run.error,
    )
