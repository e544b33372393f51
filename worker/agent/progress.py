"""Progress of an agent run, computed from its turns: plan, current step, and what the next exchange is for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import msgspec

from infra.contract.runs import RunError
from worker.agent.entries import CallRecord, GoalStep, Purpose, Turn

MAX_PLAN_TRIES = 3
"""Exchanges in a row that give no valid plan before the run fails."""
MAX_PLANS = 10
"""Plans of a run."""
MAX_IDLE = 4
"""Replies in a row without a call before the run fails."""
MAX_UNUSABLE = 3
"""Replies in a row that cannot be used before the run fails."""
MAX_REFUSED_ENDS = 5
"""Calls of `finish` that were refused before the run fails."""


@dataclass(frozen=True)
class Progress:
    """Plan of a run, and how far it has come.

    `outcomes`: of the completed steps, so that the current step is `steps[len(outcomes)]`. `began_ms`: begin of the
    current step, in ms since the epoch. `replans`: a new plan is wanted. `end`: the accepted call of `finish`, if it is
    the last word.
    """

    steps: Sequence[GoalStep] = ()
    outcomes: Sequence[str] = ()
    began_ms: int = 0
    plans: int = 0
    replans: bool = True
    end: CallRecord | None = None

    @property
    def step(self) -> int:
        """Index of the current step; of the last one, once all are completed."""
        return max(0, min(len(self.outcomes), len(self.steps) - 1))

    @property
    def current(self) -> GoalStep | None:
        """Current step; None without a plan, and once all steps are completed."""
        return self.steps[len(self.outcomes)] if len(self.outcomes) < len(self.steps) else None

    def after(self, record: CallRecord) -> "Progress":
        """Return the progress after an outcome of a call."""
        if record.status != "succeeded":
            return self
        changes = _CHANGES.get(record.tool)
        return changes(self, record) if changes else self


def _plan(before: Progress, record: CallRecord) -> Progress:
    steps = msgspec.convert(record.result["steps"], list[GoalStep])
    kept = before.steps[: len(before.outcomes)]
    return replace(before, steps=[*kept, *steps], began_ms=record.started_ms, plans=before.plans + 1, replans=False)


def _step_done(before: Progress, record: CallRecord) -> Progress:
    outcomes = [*before.outcomes, str(record.result["outcome"])]
    return replace(before, outcomes=outcomes, began_ms=record.started_ms)


def _replan(before: Progress, _record: CallRecord) -> Progress:
    return replace(before, replans=True)


def _finish(before: Progress, record: CallRecord) -> Progress:
    # If a message comes before the run can end, it goes on with a new plan: the step under way has ended here.
    outcomes = [*before.outcomes, ""] if before.current else before.outcomes
    return replace(before, outcomes=outcomes, end=record, replans=True)


_CHANGES: dict[str, Callable[[Progress, CallRecord], Progress]] = {
    "plan": _plan,
    "step_done": _step_done,
    "replan": _replan,
    "finish": _finish,
}


def progress_of(turns: Sequence[Turn]) -> Progress:
    """Return the progress after these turns. A turn after an accepted `finish` continues the run."""
    progress = Progress()
    for turn in turns:
        if progress.end:  # rarely: copies for nothing would take most of the time
            progress = replace(progress, end=None)
        for record in turn.records:
            progress = progress.after(record)
    return progress


def step_results(progress: Progress) -> list[dict[str, str]]:
    """Return each step of the plan with its outcome, which is empty unless the step is completed."""
    outcomes = [*progress.outcomes, *[""] * len(progress.steps)]
    return [
        {"goal": step.goal, "expected": step.expected, "outcome": outcome}
        for step, outcome in zip(progress.steps, outcomes, strict=False)
    ]


def planned_tools(turns: Sequence[Turn]) -> Sequence[str]:
    """Return the tools that the current step may use if the plan is strict.

    Once the conversation has untrusted text, a plan can name only tools that plans before that text have named.
    """
    current = progress_of(turns).current
    trusted: set[str] = set()
    for record in (record for turn in turns for record in turn.records):
        if record.untrusted:
            return [name for name in current.tools if name in trusted] if current else []
        if record.tool == "plan" and record.status == "succeeded":
            trusted.update(name for step in record.result["steps"] for name in step.get("tools", ()))
    return current.tools if current else []


def next_purpose(progress: Progress, covers: int | None) -> Purpose:
    """Return what the next exchange is for. `covers`: exchanges that a summary should replace now, if any."""
    if covers is not None:
        return "summary"
    return "plan" if progress.replans else "turn"


def dead_end(turns: Sequence[Turn]) -> RunError | None:
    """Return why asking the model again makes no sense, if so."""
    asked = [turn for turn in turns if turn.exchange.purpose != "summary"]
    if asked and asked[-1].exchange.purpose == "plan" and _last_in_a_row(asked, _has_no_plan) >= MAX_PLAN_TRIES:
        message = f"the model gave no valid plan in {MAX_PLAN_TRIES} tries; last: {_last_text(asked)}"
        return RunError(code="invalid_plan", message=message)
    if _last_in_a_row(asked, lambda turn: bool(turn.exchange.problem)) >= MAX_UNUSABLE:
        message = f"{MAX_UNUSABLE} replies in a row could not be used; last: {_last_text(asked)}"
        return RunError(code="model_cut", message=message)
    if _last_in_a_row(asked, lambda turn: not turn.exchange.calls) >= MAX_IDLE:
        message = f"the model neither called a tool nor finished in {MAX_IDLE} replies; last: {_last_text(asked)}"
        return RunError(code="unfinished", message=message)
    ends = [record for turn in asked for record in turn.records if record.tool == "finish"]
    refused = [record for record in ends if record.status != "succeeded"]
    if asked and refused and len(refused) >= MAX_REFUSED_ENDS and asked[-1].records[-1:] == refused[-1:]:
        code = "invalid_output" if refused[-1].code == "invalid_output" else "unfinished"
        message = f"the model tried to finish {len(refused)} times without a valid result; last: {refused[-1].message}"
        return RunError(code=code, message=message)
    if progress_of(asked).plans > MAX_PLANS:
        return RunError(code="unfinished", message=f"the model made more than {MAX_PLANS} plans")
    return None


def _has_no_plan(turn: Turn) -> bool:
    planned = any(record.tool == "plan" and record.status == "succeeded" for record in turn.records)
    return turn.exchange.purpose == "plan" and not planned


def _last_in_a_row(turns: Sequence[Turn], matches: Callable[[Turn], bool]) -> int:
    count = 0
    for turn in reversed(turns):
        if not matches(turn):
            break
        count += 1
    return count


def _last_text(turns: Sequence[Turn]) -> str:
    last = turns[-1]
    texts = [record.message for record in last.records if record.message]
    return (texts[-1] if texts else last.exchange.problem or last.exchange.text)[:500] or "an empty reply"
