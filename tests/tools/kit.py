"""Kit for calling tools as a run does: arguments from JSON, real workspace and sandbox, recorded log."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from infra.contract.execution import Command, Execution, Executor, Interpreter, LineEnd, OnLine
from infra.contract.files import FileChanges
from infra.contract.tools import parse_args
from tests.support.caller import LoneCaller
from worker.registry import REGISTRY
from worker.run.session import RunSession
from worker.toolkit.base import Tool, ToolFailed, ToolResult
from worker.toolkit.execution import ExecutionResult
from worker.workspaces import RunFiles

Result = TypeVar("Result", bound=ToolResult)


@dataclass
class RecordingContext:
    """ToolContext that records all lines, messages and changes."""

    run_id: str
    call: str
    files: RunFiles
    executor: Executor
    lines: list[tuple[str, str]] = field(default_factory=list)
    unfinished: list[bool] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    changes: list[FileChanges] = field(default_factory=list)
    time_left_s: float = 60.0
    for_model: bool = False

    @property
    def session(self) -> RunSession:
        """Session that no other call of the run has."""
        return RunSession(self.run_id, 1, self.time_left_s, self.executor)

    async def execute(
        self,
        interpreter: Interpreter,
        source: str,
        timeout_s: float | None,
        on_line: OnLine,
        network: Sequence[str] = (),
    ) -> Execution:
        timeout_s = self.time_left_s if timeout_s is None else timeout_s
        command = Command(self.run_id, self.call, interpreter, source, timeout_s, network=tuple(network))
        return await self.executor.execute(command, self.files, on_line, LoneCaller())

    async def output(
        self,
        stream: Literal["stdout", "stderr"],
        text: str,
        *,
        more: bool = False,
        replaces_line: bool = False,
        line_end: LineEnd = "\n",
    ) -> None:
        self.lines.append((stream, text))
        self.unfinished.append(more)

    async def message(self, text: str) -> None:
        self.messages.append(text)

    def changed(self, changes: FileChanges) -> None:
        self.changes.append(changes)

    @property
    def written(self) -> list[str]:
        """Paths that were reported as stored."""
        return [info.path for changes in self.changes for info in changes.written]

    @property
    def deleted(self) -> list[str]:
        """Paths that were reported as deleted."""
        return [path for changes in self.changes for path in changes.deleted]

    @property
    def skipped(self) -> list[str]:
        """Paths that were reported as skipped."""
        return [path for changes in self.changes for path in changes.skipped]


@dataclass
class Kit:
    """Run with its workspace. `context` is the context of the last call."""

    files: RunFiles
    executor: Executor
    scratch: Path
    run_id: str = field(default_factory=lambda: f"run_{uuid.uuid4().hex}")
    tools: Mapping[str, Tool] = field(default_factory=lambda: REGISTRY)
    calls: int = 0
    time_left_s: float = 60.0
    for_model: bool = False
    context: RecordingContext = field(init=False)

    async def call(self, tool: str, kind: type[Result], **args: Any) -> Result:
        """Call a tool and return its result, which must have the type `kind` and survive the journal's encoding."""
        self.context = RecordingContext(
            self.run_id,
            f"step-{self.calls}",
            self.files,
            self.executor,
            time_left_s=self.time_left_s,
            for_model=self.for_model,
        )
        self.calls += 1
        through_json = msgspec.json.decode(msgspec.json.encode(args))
        result = await self.tools[tool].run(parse_args(tool, through_json, at="$"), self.context)
        assert type(result) is kind
        _check_journal_encoding(result)
        return result

    async def failed(self, tool: str, **args: Any) -> tuple[str, str, ExecutionResult | None]:
        """Call a tool that must fail; return the code, the message and the partial result."""
        try:
            await self.call(tool, ToolResult, **args)
        except ToolFailed as exc:
            result = exc.result
            if result is not None:
                assert isinstance(result, ExecutionResult)
                _check_journal_encoding(result)
            return exc.code, str(exc), result
        raise AssertionError(f"{tool} did not fail")

    async def shell(self, command: str, **more: Any) -> ExecutionResult:
        """Call the tool `shell`."""
        return await self.call("shell", ExecutionResult, command=command, **more)


def _check_journal_encoding(result: ToolResult) -> None:
    encoded = msgspec.json.encode(result)
    assert msgspec.json.decode(encoded, type=type(result)) == result
    assert len(encoded) < 2_000_000
