"""Strategy for runs with an explicit plan: one tool call per step, each journaled, each with its events."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import UNSET

from infra import metrics
from infra.contract.errors import ContractError
from infra.contract.events import StepFinished, StepStarted, ToolFinished, ToolStarted
from infra.contract.journal import StepRecord, call_name, step_key
from infra.contract.log import NewEvent
from infra.contract.runs import PlanStep, RunError
from infra.contract.tools import parse_args
from worker.run.context import RunContext
from worker.run.emitter import new_event
from worker.run.executions import CallInterrupted
from worker.run.strategy import Drained, StepFailed
from worker.run.tool_failures import CallTime, call_duration_ms, failure_code
from worker.toolkit.base import Tool, ToolFailed, ToolResult
from worker.tracing import tool_span

TIMEOUT = "the step took longer than its timeout of {:g} s (`timeout_s` of the step)"


class PlanWalker:
    """Executes plans with the tools of a registry; implements Strategy."""

    def __init__(self, tools: Mapping[str, Tool]) -> None:
        self._tools = tools

    async def work(self, context: RunContext, draining: Callable[[], bool]) -> dict[str, object]:
        """Execute the steps that the journal does not hold yet; return the number of steps and the last result.

        Raises StepFailed, Drained, FilesUnavailable, HostExhausted, ExecutorUnavailable, LeaseLost.
        """
        plan = context.run.spec.plan or []
        record: StepRecord | None = None
        for index, step in enumerate(plan):
            if draining():
                raise Drained
            record = await self._once(context, index, step)
        return {"steps": len(plan), "last": record.result if record else None}

    async def _once(self, context: RunContext, index: int, step: PlanStep) -> StepRecord:
        repeatable = self._tools[step.tool].repeatable(step.args)
        try:
            return await context.once(
                step_key(index),
                StepRecord,
                lambda: self._execute(context, index, step),
                done=lambda record: _succeeded(index, record),
                repeatable=repeatable,
                name=call_name(index),
            )
        except CallInterrupted:
            message = (
                f"the worker was lost while the tool '{step.tool}' was running; the call is not idempotent, so it "
                "was not repeated; retry the run to repeat it"
            )
            error = RunError(code="interrupted", message=message, step=index)
            context.commit(*_failed(index, step.tool, 0, error), name=call_name(index))
            raise StepFailed(error) from None

    async def _execute(self, context: RunContext, index: int, step: PlanStep) -> StepRecord:
        if not context.adopts(call_name(index)):  # the log has both events of a call that is adopted
            emit = context.emitter.emit
            await emit(StepStarted(name=step.name or step.tool, tool=step.tool), step=index)
            await emit(ToolStarted(tool=step.tool, args=step.args), step=index)
        began, started_ms = time.monotonic(), context.call_began_ms(call_name(index))
        try:
            call_time = context.call_time(call_name(index), step.timeout_s)
            async with call_time.limit(TIMEOUT):
                result = await self._call(context, index, step, call_time)
        except (ToolFailed, ContractError) as exc:
            code = failure_code(exc, context.unable)
            # Transient failures and a lost lease are not failures of the step: the runner handles them.
            if code is None:
                raise
            error = RunError(code=code, message=str(exc), step=index)
            partial = exc.result if isinstance(exc, ToolFailed) else None
            _count(step.tool, "failed", began)
            # The files that a failed call wrote are kept, so that its user can look at them, and a retry finds them.
            duration_ms = call_duration_ms(began, msgspec.to_builtins(partial) if partial else {})
            events = _failed(index, step.tool, duration_ms, error, partial)
            await context.commit_failed(step_key(index), *events, name=call_name(index))
            raise StepFailed(error) from exc
        _count(step.tool, "succeeded", began)
        duration_ms = call_duration_ms(began, result)
        return StepRecord(tool=step.tool, started_ms=started_ms, duration_ms=duration_ms, result=result)

    async def _call(self, context: RunContext, index: int, step: PlanStep, call_time: CallTime) -> dict[str, Any]:
        args = parse_args(step.tool, step.args, at=f"$.plan[{index}]")
        tool, name = self._tools[step.tool], call_name(index)
        call = context.for_call(name, index, call_time, repeatable=tool.repeatable(step.args))
        with tool_span(step.tool, name):
            result = await tool.run(args, call)
        built: dict[str, Any] = msgspec.to_builtins(result)
        return built


def _count(tool: str, status: str, began: float) -> None:
    """Count a step, and its call of a tool, in the metrics."""
    seconds = time.monotonic() - began
    metrics.step_ended(status, seconds)
    metrics.tool_called(tool, status, seconds)


def _succeeded(index: int, record: StepRecord) -> list[NewEvent]:
    """Return the events of a step's success."""
    finished = ToolFinished(
        tool=record.tool,
        status="succeeded",
        duration_ms=record.duration_ms,
        kept=record.result.get("kept", UNSET),
        exit_code=record.result.get("exit_code", UNSET),
    )
    return [
        new_event(finished, index),
        new_event(StepFinished(status="succeeded", duration_ms=record.duration_ms), index),
    ]


def _failed(
    index: int, tool: str, duration_ms: int, error: RunError, partial: ToolResult | None = None
) -> list[NewEvent]:
    """Return the events of a step's failure."""
    exit_code = getattr(partial, "exit_code", None)
    finished = ToolFinished(
        tool=tool,
        status="failed",
        duration_ms=duration_ms,
        code=error.code,
        message=error.message,
        kept=(partial.kept if partial else ()) or UNSET,
        exit_code=UNSET if exit_code is None else exit_code,
    )
    return [new_event(finished, index), new_event(StepFinished(status="failed", duration_ms=duration_ms), index)]
