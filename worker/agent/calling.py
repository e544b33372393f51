"""Calls of tools in an agent run, each journaled with its result. A failed call is a result that the model reads."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import UNSET

from infra import metrics
from infra.contract.errors import ContractError, ExecutorUnavailable
from infra.contract.events import ToolFinished, ToolStarted
from infra.contract.log import NewEvent
from infra.contract.runs import RunError
from infra.contract.tool_args import ToolArgs
from worker.agent import tool_text
from worker.agent.calls import Judged, fingerprint
from worker.agent.control import ControlArgs, Situation, decide
from worker.agent.entries import CallRecord, tool_key
from worker.agent.policy import is_untrusted
from worker.agent.schemas import CONTROL
from worker.run.context import RunContext
from worker.run.emitter import new_event, now_ms
from worker.run.strategy import StepFailed
from worker.run.tool_failures import call_duration_ms, failure_code
from worker.toolkit.base import Tool, ToolFailed, ToolResult
from worker.tracing import tool_span

TIMEOUT = "the step took longer than its timeout of {:g} s (`limits.wall_s` of the run)"
MAX_FACT_CHARS = 200
"""Longest text of a result that is kept in the record beside the text for the model."""


@dataclass(frozen=True)
class Place:
    """Place of a call: index `index` within exchange `n`, in step `step` of the plan.

    `seconds`: time that the call may take.
    """

    n: int
    index: int
    step: int
    seconds: float

    @property
    def name(self) -> str:
        """Name of the call, the same again when it is repeated after a crash."""
        return f"call-{self.n}-{self.index}"


async def call_tool(context: RunContext, tool: Tool, args: ToolArgs, place: Place, *, times: int = 0) -> CallRecord:
    """Return the journaled outcome of a call, or make the call and journal it.

    `times`: how often a person has decided that the call be repeated after an interruption. Raises CallInterrupted if
    the call must not be repeated and was under way when its worker was lost; FilesUnavailable, HostExhausted,
    ExecutorUnavailable, LeaseLost.
    """
    key = tool_key(place.n, place.index)
    return await context.once(
        key,
        CallRecord,
        lambda: _call(context, tool, args, place),
        done=lambda record: [_finished(record, place)],
        repeatable=tool.repeatable(msgspec.to_builtins(args)),
        name=place.name,
        mark=f"{key}#{times}" if times else key,
    )


async def refuse(context: RunContext, judged: Judged, place: Place, code: str, text: str) -> CallRecord:
    """Return the journaled record of a call that is not executed; `text` gives the model the reason."""

    async def refused() -> CallRecord:
        return CallRecord(
            tool=judged.call.name,
            status="refused",
            text=text,
            step=place.step,
            started_ms=now_ms(),
            code=code,
            message=text,
            fingerprint=fingerprint(judged.call.name, judged.args or {"text": judged.call.arguments}, text),
        )

    def events(record: CallRecord) -> Sequence[NewEvent]:
        if record.tool in CONTROL:
            return []
        args = msgspec.to_builtins(judged.args) if judged.args is not None else {}
        started = ToolStarted(tool=record.tool, args=args, call=place.name)
        return [new_event(started, place.step), _finished(record, place)]

    return await context.once(tool_key(place.n, place.index), CallRecord, refused, done=events)


async def decide_once(context: RunContext, place: Place, args: ControlArgs, situation: Situation) -> CallRecord:
    """Return the journaled record of a control call, or decide about the call."""
    decision = await decide(args, situation)

    async def decided() -> CallRecord:
        return decision.record

    return await context.once(tool_key(place.n, place.index), CallRecord, decided, done=lambda _: decision.events)


async def _call(context: RunContext, tool: Tool, args: ToolArgs, place: Place) -> CallRecord:
    built: dict[str, Any] = msgspec.to_builtins(args)
    if not context.adopts(place.name):  # the log has the event of a call that is adopted
        await context.emitter.emit(ToolStarted(tool=tool.name, args=built, call=place.name), step=place.step)
    began, started_ms = time.monotonic(), context.call_began_ms(place.name)
    result: ToolResult | None = None
    failure: tuple[str, str] | None = None
    try:
        call_time = context.call_time(place.name, place.seconds)
        async with call_time.limit(TIMEOUT):
            call = context.for_call(
                place.name, place.step, call_time, for_model=True, repeatable=tool.repeatable(built)
            )
            with tool_span(tool.name, place.name):
                result = await tool.run(args, call)
    except (ToolFailed, ContractError) as exc:
        code = failure_code(exc, context.unable)
        # Transient failures and a lost lease are not outcomes of the call: the runner handles them.
        if code is None:
            raise
        if isinstance(exc, ExecutorUnavailable):  # nothing that a model could mend
            raise StepFailed(RunError(code=code, message=str(exc), step=place.step)) from exc
        result = exc.result if isinstance(exc, ToolFailed) else None
        failure = (code, str(exc))
    values: dict[str, Any] = msgspec.to_builtins(result) if result is not None else {}
    text = tool_text.result_text(tool.name, values, failure)
    code, message = failure or ("", "")
    seconds = time.monotonic() - began
    metrics.tool_called(tool.name, "failed" if failure else "succeeded", seconds)
    return CallRecord(
        tool=tool.name,
        status="failed" if failure else "succeeded",
        text=text,
        step=place.step,
        started_ms=started_ms,
        duration_ms=call_duration_ms(began, values),
        code=code,
        message=message,
        untrusted=is_untrusted(tool.name, built),
        fingerprint=fingerprint(tool.name, built, text),
        result=_facts(values),
    )


def _facts(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the short values of a result: the text for the model has the others."""
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, bool | int | float) or len(msgspec.json.encode(value)) <= MAX_FACT_CHARS
    }


def _finished(record: CallRecord, place: Place) -> NewEvent:
    finished = ToolFinished(
        tool=record.tool,
        status="succeeded" if record.status == "succeeded" else "failed",
        duration_ms=record.duration_ms,
        code=record.code or UNSET,
        message=record.message or UNSET,
        kept=record.result.get("kept", UNSET),
        exit_code=_exit_code(record),
        call=place.name,
    )
    return new_event(finished, place.step)


def _exit_code(record: CallRecord) -> Any:
    value = record.result.get("exit_code")
    return UNSET if value is None else value
