"""Walks an explicit plan: one tool call a step, each journaled, each told to the log."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from msgspec import UNSET

from infra.contract.errors import ContractError, ExecutorUnavailable, FileMissing, InvalidInput, LimitExceeded
from infra.contract.events import StepFinished, StepStarted, ToolFinished, ToolStarted
from infra.contract.models import NewEvent, PlanStep, RunError
from infra.contract.tools import parse_args
from worker.run.context import Interrupted, RunContext
from worker.run.emitter import new_event
from worker.toolkit.base import Tool, ToolFailed

_CODES: dict[type[ContractError], str] = {
    ExecutorUnavailable: "executor_unavailable",
    FileMissing: "file_missing",
    InvalidInput: "invalid_input",
    LimitExceeded: "limit_exceeded",
}


class StepFailed(Exception):
    """A step ended with an error that another attempt would meet again."""

    def __init__(self, error: RunError) -> None:
        super().__init__(error.message)
        self.error = error


class Drained(Exception):
    """The worker is stopping and the run has reached a step boundary."""


class StepRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What the journal keeps of a completed step."""

    tool: str
    duration_ms: int
    result: dict[str, Any]


class PlanWalker:
    """Executes plans with the tools of a registry."""

    def __init__(self, tools: Mapping[str, Tool]) -> None:
        self._tools = tools

    async def walk(
        self, context: RunContext, plan: Sequence[PlanStep], draining: Callable[[], bool]
    ) -> dict[str, object]:
        """Execute the steps that the journal does not hold yet; the run's result.

        Raises StepFailed, Drained, FilesUnavailable, WorkerShort, LeaseLost.
        """
        record: StepRecord | None = None
        for index, step in enumerate(plan):
            if draining():
                raise Drained
            record = await self._once(context, index, step)
        return {"steps": len(plan), "last": record.result if record else None}

    async def _once(self, context: RunContext, index: int, step: PlanStep) -> StepRecord:
        def done(record: StepRecord) -> list[NewEvent]:
            return _succeeded(index, record)

        repeatable = self._tools[step.tool].idempotent
        try:
            return await context.once(
                step_key(index),
                StepRecord,
                lambda: self._execute(context, index, step),
                done=done,
                repeatable=repeatable,
            )
        except Interrupted:
            message = f"the tool {step.tool} was under way when its worker was lost, and must not be repeated unasked"
            error = RunError(code="interrupted", message=message, step=index)
            context.settle(*_failed(index, step.tool, 0, error))
            raise StepFailed(error) from None

    async def _execute(self, context: RunContext, index: int, step: PlanStep) -> StepRecord:
        emit = context.emitter.emit
        await emit(StepStarted(name=step.name or step.tool, tool=step.tool), step=index)
        await emit(ToolStarted(tool=step.tool, args=step.args), step=index)
        began = time.monotonic()

        def duration_ms() -> int:
            return int((time.monotonic() - began) * 1000)

        try:
            async with _within(step.timeout_s):
                result = await self._call(context, index, step)
        except (ToolFailed, ContractError) as exc:
            code = exc.code if isinstance(exc, ToolFailed) else _CODES.get(type(exc))
            if code is None:
                raise
            error = RunError(code=code, message=str(exc), step=index)
            known = exc.result if isinstance(exc, ToolFailed) else None
            context.settle(*_failed(index, step.tool, duration_ms(), error, known.kept if known else ()))
            raise StepFailed(error) from exc
        return StepRecord(tool=step.tool, duration_ms=duration_ms(), result=result)

    async def _call(self, context: RunContext, index: int, step: PlanStep) -> dict[str, Any]:
        args = parse_args(step.tool, step.args, at=f"$.plan[{index}]")
        result = await self._tools[step.tool].run(args, context.for_step(index))
        built: dict[str, Any] = msgspec.to_builtins(result)
        return built


def step_key(index: int) -> str:
    """The journal's entry of a step."""
    return f"step:{index}"


@asynccontextmanager
async def _within(timeout_s: float | None) -> AsyncIterator[None]:
    """Raise ToolFailed with code `timeout` when the time is over."""
    deadline = asyncio.timeout(timeout_s)
    try:
        async with deadline:
            yield
    except TimeoutError:
        if not deadline.expired():
            raise
        raise ToolFailed("timeout", f"the step took longer than its timeout of {timeout_s:g} s") from None


def _succeeded(index: int, record: StepRecord) -> list[NewEvent]:
    """The events of the good end of a step."""
    took, kept = record.duration_ms, record.result.get("kept", UNSET)
    return [
        new_event(ToolFinished(tool=record.tool, status="succeeded", duration_ms=took, kept=kept), index),
        new_event(StepFinished(status="succeeded", duration_ms=took), index),
    ]


def _failed(index: int, tool: str, took: int, error: RunError, kept: Sequence[str] = ()) -> list[NewEvent]:
    """The events of the bad end of a step after `took` ms."""
    told = ToolFinished(
        tool=tool,
        status="failed",
        duration_ms=took,
        code=error.code,
        message=error.message,
        kept=list(kept) or UNSET,
    )
    return [new_event(told, index), new_event(StepFinished(status="failed", duration_ms=took), index)]
