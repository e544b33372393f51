"""Tools as a run calls them: arguments from JSON, the real workspace and sandbox, and what the log was told."""

import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from infra.contract.execution import Command, Execution, Executor, Interpreter, OnLine
from infra.contract.files import FileChanges
from infra.contract.tools import parse_args
from worker.registry import REGISTRY
from worker.toolkit.base import ToolFailed, ToolResult
from worker.toolkit.execution import ExecutionResult
from worker.workspaces import RunFiles

Result = TypeVar("Result", bound=ToolResult)


@dataclass
class Told:
    """A ToolContext that remembers what it was told."""

    run_id: str
    call: str
    files: RunFiles
    executor: Executor
    lines: list[tuple[str, str]] = field(default_factory=list)
    unfinished: list[bool] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    changes: list[FileChanges] = field(default_factory=list)

    async def execute(self, interpreter: Interpreter, source: str, timeout_s: float, on_line: OnLine) -> Execution:
        command = Command(self.run_id, self.call, interpreter, source, timeout_s)
        return await self.executor.execute(command, self.files, on_line)

    async def output(self, stream: Literal["stdout", "stderr"], text: str, *, more: bool = False) -> None:
        self.lines.append((stream, text))
        self.unfinished.append(more)

    async def message(self, text: str) -> None:
        self.messages.append(text)

    def changed(self, changes: FileChanges) -> None:
        self.changes.append(changes)

    @property
    def written(self) -> list[str]:
        """The paths that were reported as stored."""
        return [info.path for changes in self.changes for info in changes.written]

    @property
    def deleted(self) -> list[str]:
        """The paths that were reported as deleted."""
        return [path for changes in self.changes for path in changes.deleted]

    @property
    def skipped(self) -> list[str]:
        """The paths that were reported as never stored."""
        return [path for changes in self.changes for path in changes.skipped]


@dataclass
class Kit:
    """One run with its workspace. `told` is the context of the last call."""

    files: RunFiles
    executor: Executor
    scratch: Path
    run_id: str = field(default_factory=lambda: f"run_{uuid.uuid4().hex}")
    calls: int = 0
    told: Told = field(init=False)

    async def call(self, tool: str, kind: type[Result], **args: Any) -> Result:
        """Call a tool; its result is of the kind that it promises, and fit for the journal."""
        self.told = Told(self.run_id, f"step-{self.calls}", self.files, self.executor)
        self.calls += 1
        through_json = msgspec.json.decode(msgspec.json.encode(args))
        result = await REGISTRY[tool].run(parse_args(tool, through_json, at="$"), self.told)
        assert type(result) is kind
        _fit_for_the_journal(result)
        return result

    async def failed(self, tool: str, **args: Any) -> tuple[str, str, ExecutionResult | None]:
        """Call a tool that fails: the code, the message, and what is known all the same."""
        try:
            await self.call(tool, ToolResult, **args)
        except ToolFailed as exc:
            result = exc.result
            if result is not None:
                assert isinstance(result, ExecutionResult)
                _fit_for_the_journal(result)
            return exc.code, str(exc), result
        raise AssertionError(f"{tool} did not fail")

    async def shell(self, command: str, **more: Any) -> ExecutionResult:
        """Run a command line."""
        return await self.call("shell", ExecutionResult, command=command, **more)


def _fit_for_the_journal(result: ToolResult) -> None:
    encoded = msgspec.json.encode(result)
    assert msgspec.json.decode(encoded, type=type(result)) == result
    assert len(encoded) < 2_000_000
