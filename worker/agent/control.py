"""Control tools: calls by which a model plans, ends steps, and ends the run. They have no effect but their record."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from msgspec import UNSET

from infra.contract.events import PlanCreated, PlannedStep, StepFinished, StepStarted
from infra.contract.files import FileInfo
from infra.contract.log import NewEvent
from worker.agent.entries import CallRecord, GoalStep, Setup
from worker.agent.output_schema import SchemaError, first_fault
from worker.agent.progress import Progress, step_results
from worker.agent.schemas import FinishArgs, PlanArgs, ReplanArgs, StepDoneArgs
from worker.run.emitter import new_event, new_events, now_ms

MAX_TITLE_CHARS = 200
ControlArgs = PlanArgs | StepDoneArgs | ReplanArgs | FinishArgs


@dataclass(frozen=True)
class Decision:
    """Outcome of a control call: the record, and the events that are logged with it."""

    record: CallRecord
    events: Sequence[NewEvent] = ()


@dataclass(frozen=True)
class Situation:
    """State in which a call of the control tool `tool` is decided.

    `files`: of the workspace. `failed`: an earlier call of the reply has failed, so that the model cannot know the
    state that it speaks of.
    """

    tool: str
    setup: Setup
    progress: Progress
    files: Sequence[FileInfo]
    failed: bool


async def decide(args: ControlArgs, situation: Situation) -> Decision:
    """Return the decision about a control call."""
    match args:
        case PlanArgs():
            return _plan(args, situation)
        case StepDoneArgs():
            return _step_done(args, situation)
        case ReplanArgs():
            return _replan(args, situation)
        case FinishArgs():
            return await _finish(args, situation)


def _plan(args: PlanArgs, situation: Situation) -> Decision:
    known = {spec.name for spec in situation.setup.tools}
    for index, step in enumerate(args.steps):
        if unknown := [name for name in step.tools if name not in known]:
            text = f"steps[{index}].tools has '{unknown[0]}', which is not offered; offered are {', '.join(known)}"
            return _refused(text, situation, code="invalid_plan")
    progress = situation.progress
    first = len(progress.outcomes)
    planned = [PlannedStep(name=step.goal[:MAX_TITLE_CHARS]) for step in args.steps]
    created = new_events(PlanCreated(steps=planned, first=first))
    started = new_event(StepStarted(name=planned[0].name), first)
    text = f"The plan is accepted. {_next_step(first, args.steps[0])}"
    result = {"steps": msgspec.to_builtins(args.steps)}
    return _accepted(text, situation, result, [*created, started])


def _step_done(args: StepDoneArgs, situation: Situation) -> Decision:
    progress = situation.progress
    if situation.failed:
        return _refused("A call before this one failed. Read its result first.", situation)
    if progress.current is None:
        return _refused("All steps are done. Check the result, then call finish.", situation)
    index = progress.step
    events = [_step_ended(progress, "succeeded")]
    if index + 1 < len(progress.steps):
        following = progress.steps[index + 1]
        events.append(new_event(StepStarted(name=following.goal[:MAX_TITLE_CHARS]), index + 1))
        text = _next_step(index + 1, following)
    else:
        text = "That was the last step. Check the result, then call finish."
    return _accepted(text, situation, {"outcome": args.outcome}, events)


def _replan(args: ReplanArgs, situation: Situation) -> Decision:
    result = {"reason": args.reason, "learned": args.learned}
    events = [_step_ended(situation.progress, "failed", args.reason)] if situation.progress.current else []
    return _accepted("Make a new plan for what is left.", situation, result, events)


async def _finish(args: FinishArgs, situation: Situation) -> Decision:
    if situation.failed:
        return _refused("A call before this one failed. Read its result first.", situation)
    present = {file.path: file.size_bytes for file in situation.files}
    if missing := [path for path in args.files if path not in present]:
        text = f"The workspace has no file '{missing[0]}'. Write it, or leave it out of `files`."
        return _refused(text, situation, code="file_missing")
    schema, output = situation.setup.output_schema, args.output
    if schema is not None:
        try:
            fault = await first_fault(schema, None if output is UNSET else output)
        except SchemaError as exc:
            fault = str(exc)
        if fault:
            return _refused(f"`output` does not follow its schema: {fault}", situation, code="invalid_output")
    progress = situation.progress
    result: dict[str, Any] = {
        "summary": args.summary,
        "files": [{"path": path, "size_bytes": present[path]} for path in args.files],
        "steps": step_results(progress),
    }
    if output is not UNSET:
        result["output"] = output
    # A run may finish within its last step, without a call of `step_done`.
    events = [_step_ended(progress, "succeeded")] if progress.current else []
    return _accepted("The run is finished.", situation, result, events)


def _next_step(index: int, step: GoalStep) -> str:
    expected = f" It is done when: {step.expected}" if step.expected else ""
    return f"Step {index + 1}: {step.goal}.{expected}"


def _step_ended(progress: Progress, status: Literal["succeeded", "failed"], reason: str = "") -> NewEvent:
    ended = StepFinished(status=status, duration_ms=max(0, now_ms() - progress.began_ms), message=reason or UNSET)
    return new_event(ended, progress.step)


def _accepted(text: str, situation: Situation, result: dict[str, Any], events: Sequence[NewEvent]) -> Decision:
    return Decision(_record("succeeded", text, situation, result=result), events)


def _refused(text: str, situation: Situation, code: str = "refused") -> Decision:
    return Decision(_record("refused", text, situation, code=code, message=text))


def _record(status: Literal["succeeded", "refused"], text: str, situation: Situation, **more: Any) -> CallRecord:
    step = situation.progress.step
    return CallRecord(tool=situation.tool, status=status, text=text, step=step, started_ms=now_ms(), **more)
