"""Context of one tool call: what a tool may use of its run."""

import time
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from msgspec import UNSET

from infra.contract.events import Artifact, Log, Message, ToolOutput
from infra.contract.execution import Command, Execution, Executor, Interpreter, LineEnd, OnLine, OutputStream
from infra.contract.files import MAX_FOLDERS, DirectoryFiles, FileChanges, ToolFiles
from infra.contract.journal import call_name
from infra.contract.log import NewEvent
from infra.contract.runs import RunRecord
from infra.contract.tools import MAX_TOOL_TIMEOUT_S
from worker.run.emitter import LogEmitter, new_event
from worker.run.session import RunSession
from worker.toolkit.network import use_note
from worker.workspaces import RunFiles

LINE_ENDS: Mapping[LineEnd, Literal["crlf", "none", "overwritten"]] = {"\r\n": "crlf", "": "none", "\r": "overwritten"}
"""Names of line ends in the log; a line feed is not named."""


class CallRun(Protocol):
    """Part of a run's context that its calls use."""

    run: RunRecord
    emitter: LogEmitter
    session: RunSession

    def defer(self, event: NewEvent) -> None:
        """Log an event together with the next commit."""
        ...


class CallContext:
    """Context of one tool call; implements ToolContext."""

    def __init__(
        self,
        context: CallRun,
        files: RunFiles,
        executor: Executor,
        call: str,
        step: int,
        deadline_s: float,
        *,
        for_model: bool,
    ) -> None:
        self.call = call
        self.for_model = for_model
        self.files: ToolFiles = files
        self.session = context.session
        self._context = context
        self._directory: DirectoryFiles = files
        self._executor = executor
        self._step = step
        self._deadline_s = deadline_s

    @property
    def run_id(self) -> str:
        """Id of the run."""
        return self._context.run.id

    @property
    def time_left_s(self) -> float:
        """Seconds until the step or the run times out, whichever is first, but at most MAX_TOOL_TIMEOUT_S."""
        return max(0.0, min(MAX_TOOL_TIMEOUT_S, self._deadline_s - time.monotonic()))

    async def execute(
        self, interpreter: Interpreter, source: str, timeout_s: float, on_line: OnLine, network: Sequence[str] = ()
    ) -> Execution:
        """Execute a program in the workspace; log its use of the network."""
        command = Command(self.run_id, self.call, interpreter, source, timeout_s, network=tuple(network))
        execution = await self._executor.execute(command, self._directory, on_line)
        if use := execution.network:
            await self._context.emitter.emit(use_note(use), step=self._step)
        return execution

    async def output(
        self,
        stream: OutputStream,
        text: str,
        *,
        more: bool = False,
        replaces_line: bool = False,
        line_end: LineEnd = "\n",
    ) -> None:
        """Log a line of output, or a part of it."""
        output = ToolOutput(
            stream=stream,
            text=text,
            more=more,
            replaces_line=replaces_line,
            line_end=LINE_ENDS.get(line_end, UNSET),
            call=UNSET if self.call == call_name(self._step) else self.call,
        )
        await self._context.emitter.emit(output, step=self._step)

    async def message(self, text: str) -> None:
        """Log a message to the people who watch the run."""
        await self._context.emitter.emit(Message(text=text), step=self._step)

    def changed(self, changes: FileChanges) -> None:
        """Log changes of the workspace, in the write that makes them count."""
        for file in changes.written:
            self._context.defer(new_event(Artifact(path=file.path, size_bytes=file.size_bytes), self._step))
        for path in changes.deleted:
            self._context.defer(new_event(Artifact(path=path, deleted=True), self._step))
        for path in changes.skipped:
            note = f"not stored: '{path}' is a link, a special file, or has a name that is not allowed"
            self._context.defer(new_event(Log(level="warning", message=note), self._step))
        if changes.unkept_folders:
            note = (
                f"not stored: {changes.unkept_folders} folders that are empty or have special permissions; a workspace "
                f"keeps at most {MAX_FOLDERS} of them"
            )
            self._context.defer(new_event(Log(level="warning", message=note), self._step))
