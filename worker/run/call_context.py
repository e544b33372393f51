"""Context of one tool call, for the tool."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Literal

from msgspec import UNSET

from infra.contract.content_types import content_type
from infra.contract.events import Artifact, Log, Message, ToolOutput
from infra.contract.execution import Command, Execution, Interpreter, LineEnd, OnLine, OutputStream
from infra.contract.files import MAX_FOLDERS, FileChanges, ToolFiles
from infra.contract.journal import call_name
from infra.contract.log import NewEvent
from infra.contract.queue import Writes
from infra.contract.tools import MAX_TOOL_TIMEOUT_S
from worker.run.emitter import LogEmitter, new_event
from worker.run.executions import RunExecutions
from worker.run.session import RunSession
from worker.run.tool_failures import CallTime
from worker.toolkit.network import use_note
from worker.workspaces import RunFiles

LINE_ENDS: Mapping[LineEnd, Literal["crlf", "none", "overwritten"]] = {
    "\r\n": "crlf",
    "": "none",
    "\r": "overwritten",
}
"""Names of line ends in the log; a line feed is not named."""
LATE_S = 5.0
"""Time by which a program may outlast its call."""


@dataclass(frozen=True)
class CallRun:
    """Run of a call. `defer` logs an event together with the next commit.

    `ends_at`: when the time of the run is over, by the monotonic clock.
    """

    id: str
    emitter: LogEmitter
    executions: RunExecutions
    session: RunSession
    files: RunFiles
    defer: Callable[[NewEvent], None]
    ends_at: float


class CallContext:
    """Context of one tool call; implements ToolContext."""

    def __init__(
        self,
        run: CallRun,
        call: str,
        step: int,
        within: CallTime,
        *,
        for_model: bool,
        repeatable: bool,
    ) -> None:
        self.call = call
        self.for_model = for_model
        self.files: ToolFiles = run.files
        self.session = run.session
        self._run = run
        self._step = step
        self._time = within
        self._repeatable = repeatable

    @property
    def run_id(self) -> str:
        """Id of the run."""
        return self._run.id

    @property
    def time_left_s(self) -> float:
        """Seconds until the step or the run times out, whichever is first, but at most MAX_TOOL_TIMEOUT_S."""
        return max(0.0, min(MAX_TOOL_TIMEOUT_S, self._time.left_s, self._run.ends_at - monotonic()))

    async def execute(
        self,
        interpreter: Interpreter,
        source: str,
        timeout_s: float | None,
        on_line: OnLine,
        network: Sequence[str] = (),
    ) -> Execution:
        """Execute a program in the workspace; log its use of the network."""

        def command() -> Command:
            left_s = self.time_left_s
            # The call itself is ended in time by this worker. The limit of the program counts if no worker is there.
            limit_s = left_s if timeout_s is None else min(timeout_s, left_s + LATE_S)
            return Command(self.run_id, self.call, interpreter, source, limit_s, network=tuple(network))

        def restarted() -> Command:
            self._time.restart()
            return command()

        execution = await self._run.executions.execute(
            command(), self._run.files, on_line, self._warn, restarted, repeatable=self._repeatable
        )
        if use := execution.network:
            await self._run.emitter.emit(use_note(use), step=self._step)
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
        await self._run.executions.log_output(output, self._step)

    async def message(self, text: str) -> None:
        """Log a message to the people who watch the run."""
        await self._run.emitter.emit(Message(text=text), step=self._step)

    def changed(self, changes: FileChanges) -> None:
        """Log changes of the workspace, in the write that makes them count."""
        for file in changes.written:
            stored = Artifact(path=file.path, size_bytes=file.size_bytes, content_type=content_type(file.path))
            self._run.defer(new_event(stored, self._step))
        for path in changes.deleted:
            self._run.defer(new_event(Artifact(path=path, deleted=True), self._step))
        for path in changes.skipped:
            note = f"not stored: '{path}' is a link, a special file, or has a name that is not allowed"
            self._run.defer(new_event(Log(level="warning", message=note), self._step))
        if changes.unkept_folders:
            note = (
                f"not stored: {changes.unkept_folders} folders that are empty or have special permissions; a workspace "
                f"keeps at most {MAX_FOLDERS} of them"
            )
            self._run.defer(new_event(Log(level="warning", message=note), self._step))

    def _warn(self, message: str) -> None:
        # Without waiting for space in the buffer: a cancelled call may warn as well.
        self._run.emitter.put(Writes(events=[new_event(Log(level="warning", message=message), self._step)]))
