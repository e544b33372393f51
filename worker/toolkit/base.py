"""Tool: a function from typed arguments and a ToolContext to a typed result."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import msgspec

from infra.contract.execution import ExecLimits, Execution, Interpreter, LineEnd, OnLine, OutputStream
from infra.contract.files import FileChanges, ToolFiles


class ToolResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of all results. A result is stored in the run's journal, so it must be small: large output is a file.

    `kept` names the files with the complete output, if the log does not have it, or not byte for byte.
    """

    kept: tuple[str, ...] = ()


class ToolFailed(Exception):
    """Failure of a tool call, such as a non-zero exit code, a missing file, or a timeout.

    `code` is stable and goes into the run's error; `result` is the partial result, if there is one.
    """

    def __init__(self, code: str, message: str, result: ToolResult | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.result = result


@dataclass(frozen=True)
class SessionProgram:
    """Python program that answers the calls of a run, one after the other; `Command` explains the fields."""

    source: str = field(repr=False)
    max_reply_bytes: int
    limits: ExecLimits
    network: tuple[str, ...]
    mounts: Mapping[str, Path]
    etc: Mapping[str, str]


class ToolSession(Protocol):
    """Session of a run: at most one long-lived program, which stays between the calls of the run.

    It ends when the run waits or ends, or when its worker does. `note` outlives it: the last text that a call has left
    for the calls after it, whatever worker makes them. It is stored together with the result of the call.
    """

    note: str

    @property
    def program(self) -> SessionProgram | None:
        """Program that runs; None if none does."""
        ...

    async def open(self, program: SessionProgram) -> None:
        """Start a program; an earlier one is ended. Raises ExecutorUnavailable, HostExhausted."""
        ...

    async def ask(self, request: bytes, timeout_s: float) -> bytes:
        """Return the reply of the program to a request. Raises SessionLost, after which no program runs."""
        ...

    async def close(self) -> None:
        """End the program, if one runs."""
        ...


class ToolContext(Protocol):
    """Everything that a running tool may use."""

    @property
    def call(self) -> str:
        """Name of this call within the run, such as `step-3`; a repetition after a crash has the same name."""
        ...

    @property
    def run_id(self) -> str:
        """Id of the run."""
        ...

    @property
    def time_left_s(self) -> float:
        """Seconds until the step or the run times out, whichever is first, but at most MAX_TOOL_TIMEOUT_S."""
        ...

    @property
    def for_model(self) -> bool:
        """True if a model reads the result. A model cannot read the log, so it needs files with long output."""
        ...

    @property
    def files(self) -> ToolFiles:
        """Files of the workspace."""
        ...

    @property
    def session(self) -> ToolSession:
        """Session of the run."""
        ...

    async def execute(
        self,
        interpreter: Interpreter,
        source: str,
        timeout_s: float | None,
        on_line: OnLine,
        network: Sequence[str] = (),
    ) -> Execution:
        """Execute a program in the workspace; log its use of `network` (see Command). `timeout_s` None: all time left.

        Raises ExecutorUnavailable and others, as `Executor.execute`.
        """
        ...

    async def output(
        self,
        stream: OutputStream,
        text: str,
        *,
        more: bool = False,
        replaces_line: bool = False,
        line_end: LineEnd = "\n",
    ) -> None:
        """Log a line of output live (event `tool.output`), or a part of it: with `more`, the line continues.

        `replaces_line`: the line replaces the previous one of the stream. `line_end`: how the program ended the line.
        """
        ...

    async def message(self, text: str) -> None:
        """Log a message to the people who watch the run (event `message`)."""
        ...

    def changed(self, changes: FileChanges) -> None:
        """Log stored, deleted (events `artifact`) and skipped files (event `log`), in the write that commits them."""
        ...


@dataclass(frozen=True)
class Tool:
    """Entry of the registry: the type of the arguments, the function, and whether it needs the executor.

    `idempotent`: executing the call again after a crash does no harm. That holds for every tool that changes only the
    workspace, because uncommitted changes are discarded. An interrupted call of another tool fails the run. A function
    decides by the arguments as they are in the plan, unchecked. `ready`: its settings allow calls; a tool that is not
    ready is offered to no model that a run has not given it to by name. `notes`: sentences that the settings add to the
    description of an argument; with an empty one, models do not see the argument.
    """

    name: str
    args: type[Any]
    run: Callable[[Any, ToolContext], Awaitable[ToolResult]]
    idempotent: bool | Callable[[Mapping[str, Any]], bool]
    executes: bool = False
    ready: bool = True
    notes: Mapping[str, str] = field(default_factory=dict)

    def repeatable(self, args: Mapping[str, Any]) -> bool:
        """Return whether a call with these arguments, as in the plan, may be executed again after a crash."""
        return self.idempotent if isinstance(self.idempotent, bool) else self.idempotent(args)
