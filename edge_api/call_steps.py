"""Calls of an agent as steps of its run: those that have ended from the journal, the one under way from the log."""

from collections.abc import Sequence
from typing import Final

import msgspec

from edge_api.http.response_models import Step, StepStatus
from edge_api.logs.filters import EventFilter
from infra.contract import journal
from infra.contract.errors import FileMissing, RecordUnreadable
from infra.contract.events import RunRequeued, RunResumed, RunRetried, RunStarted, ToolFinished, ToolStarted
from infra.contract.journal import BlobRef, CallOutcome
from infra.contract.log import Event
from infra.contract.redis_store.reader import RunReader
from infra.contract.runs import RunError, RunRecord

MAX_CALLS: Final = 1000
"""Most calls in one list, and highest number of calls of which each can be shown."""
NEWEST: Final = EventFilter(
    types=frozenset(
        {RunStarted.TYPE, RunResumed.TYPE, RunRequeued.TYPE, RunRetried.TYPE, ToolStarted.TYPE, ToolFinished.TYPE}
    )
)
"""Events of which the last one shows which call is under way."""
_UNREADABLE = RunError(code="unreadable_record", message="the stored outcome of this call cannot be read")


async def list_calls(
    store: RunReader, run: RunRecord, newest: Sequence[Event], status: StepStatus | None, max_bytes: int
) -> list[Step]:
    """Return the calls of an agent in order. `newest`: last event of the log among NEWEST, read before this call.

    `status` is that of a call under way. Results are left out once they have `max_bytes` together.
    """
    entries = await store.call_entries(run.id, most=MAX_CALLS)
    steps: list[Step] = []
    size = 0
    for entry in entries.values():
        size += len(entry)
        steps.append(_ended(run.id, len(steps), entry, with_result=size <= max_bytes))
    event = newest[-1] if newest else None
    if status and event and event.type == ToolStarted.TYPE and len(steps) < MAX_CALLS:
        place = journal.call_position(str(event.data.get("call", "")))
        # The log was read first, so the call may be in the journal by now.
        if place is not None and place not in entries:
            tool = str(event.data.get("tool", ""))
            steps.append(_step(len(steps), tool, status, plan_step=event.step, started_ms=event.ts))
    return steps


async def stored_call(store: RunReader, run: RunRecord, index: int) -> CallOutcome | BlobRef:
    """Return the call with this index, or where it is stored. Raises FileMissing, RecordUnreadable."""
    entries = [*(await store.call_entries(run.id, most=min(index + 1, MAX_CALLS))).values()]
    if index >= len(entries):
        raise FileMissing(f"the run has no call {index} that has ended; calls are counted from 0")
    try:
        return journal.blob_ref(entries[index]) or msgspec.json.decode(entries[index], type=CallOutcome)
    except msgspec.DecodeError as exc:
        raise RecordUnreadable(f"the stored outcome of call {index} of run '{run.id}' cannot be read") from exc


def _ended(run_id: str, index: int, entry: bytes, *, with_result: bool) -> Step:
    try:
        ref = journal.blob_ref(entry)
        call = ref.call if ref else msgspec.json.decode(entry, type=CallOutcome)
    except msgspec.DecodeError:
        call = None
    if call is None:
        # The other calls are shown all the same.
        return _step(index, "", "failed", error=_UNREADABLE)
    complete = ref is None and with_result
    failed = call.status != "succeeded"
    return _step(
        index,
        call.tool,
        "failed" if failed else "succeeded",
        plan_step=call.step,
        started_ms=call.started_ms,
        duration_ms=call.duration_ms,
        result=dict(call.result) if complete else None,
        kept=None if complete else f"/agent/runs/{run_id}/steps/{index}",
        error=RunError(code=call.code, message=call.message[: journal.MAX_LISTED_CHARS]) if failed else None,
    )


def _step(index: int, tool: str, status: StepStatus, **known: object) -> Step:
    unknown = dict.fromkeys(("plan_step", "started_ms", "duration_ms", "result", "kept", "error"))
    return msgspec.convert(
        {"index": index, "name": tool, "tool": tool, "status": status, **unknown, **known}, Step, from_attributes=True
    )
