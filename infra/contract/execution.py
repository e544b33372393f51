"""Port to an executor, which runs programs in isolation."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:  # the runner in a pod imports this module, and has the standard library alone
    from infra.contract.files import FileChanges
    from infra.contract.lending import ExecutorFiles, OpenExecution

Interpreter: TypeAlias = Literal["sh", "bash", "python", "node"]
OutputStream: TypeAlias = Literal["stdout", "stderr"]
LineEnd: TypeAlias = Literal["\n", "\r\n", "", "\r"]


@dataclass(frozen=True)
class ExecLimits:
    """Limits of one execution."""

    memory_bytes: int = 1024 * 1024 * 1024
    file_bytes: int = 256 * 1024 * 1024
    processes: int = 256
    output_bytes: int = 16 * 1024 * 1024
    """Limit for stdout and for stderr each; further bytes are discarded and counted."""


@dataclass(frozen=True)
class Command:
    """Program to execute in a run's workspace. `call` names it within the run, such as `step-3`.

    `interpreter` names the program that the executor must find; `source` is the text it interprets. `network`: sorted
    entries `host:port` to which the program may connect through a proxy; a host is exact or `*.example.org`, which
    stands for all hosts below example.org. Without entries the program has no network. `mounts`: files and folders of
    the host that the program may read, by their paths in the sandbox. `etc`: texts of files, by paths below `/etc`.
    """

    run_id: str
    call: str
    interpreter: Interpreter
    source: str
    timeout_s: float
    limits: ExecLimits = field(default_factory=ExecLimits)
    network: tuple[str, ...] = ()
    mounts: Mapping[str, Path] = field(default_factory=dict)
    etc: Mapping[str, str] = field(default_factory=dict)


class Traffic(NamedTuple):
    """Bytes that a program sent to a host, and received from it."""

    sent: int
    received: int


@dataclass(frozen=True)
class NetworkUse:
    """Use of the network by one execution. `refused` has the reason for each `host:port` that was refused."""

    traffic: Mapping[str, Traffic]
    refused: Mapping[str, str]


@dataclass(frozen=True)
class Execution:
    """End of an execution.

    `exit_code` is None if the program was killed at its timeout; 128 + n if signal n ended it. `stdout` and `stderr`
    are files with the output up to the limit, `*_bytes` count all that was printed. The files live until `release`.
    `network` is None if the program had none, or if the executor does not see its use.
    """

    exit_code: int | None
    timed_out: bool
    duration_ms: int
    stdout: Path
    stderr: Path
    stdout_bytes: int
    stderr_bytes: int
    changes: "FileChanges"
    network: NetworkUse | None = None


class LinePart(NamedTuple):
    """Line of output without its end, or a part of it.

    `more`: the next part continues the line. `replaces`: the line replaces the previous one of the same stream, which
    the program has overwritten. `end`: the end of the line: a line feed, CR LF, nothing at the end of the
    output, or a carriage return where the program has overwritten the line, so that parts of its output are left out.
    """

    text: str
    more: bool = False
    replaces: bool = False
    end: LineEnd = "\n"


OnLine: TypeAlias = Callable[[OutputStream, LinePart], Awaitable[bool]]
"""Callback for each line of output as it appears; a long line, and one that is slow to end, comes in parts. It is
awaited: while the log is slow, the program waits, or the executor keeps the lines up to a limit of its own. It returns
False if it needs no further lines of this stream."""


class ExecutionCaller(Protocol):
    """Call of a tool, as an executor sees it whose programs outlive their worker."""

    @property
    def number(self) -> int:
        """Number of this execution within its run, from 1. No other execution of the run has it."""
        ...

    async def record(self, begun: "OpenExecution") -> None:
        """Journal the execution as open. Return once that is stored. Raises LeaseLost."""
        ...

    def continues_elsewhere(self) -> bool:
        """Return whether another worker continues the run, so that its program must be left running."""
        ...

    def warn(self, message: str) -> None:
        """Log a warning for the people who watch the run."""
        ...


class Session(Protocol):
    """Program that answers requests until it is closed, its time is up, or it ends."""

    async def ask(self, request: bytes, timeout_s: float) -> bytes:
        """Send a request and return the reply; one at a time.

        If the calling task is cancelled, the whole process tree is dead before CancelledError leaves this method,
        unless the program runs on another machine, which does not confirm its end within seconds.
        Raises SessionLost if the program has ended, does not reply within `timeout_s`, or replies with too much; the
        session is closed then.
        """
        ...

    async def close(self) -> None:
        """Kill the whole process tree and return as `ask` does when cancelled. Can be called repeatedly."""
        ...


class Executor(Protocol):
    """Executor of programs."""

    async def check(self) -> None:
        """Raise ExecutorUnavailable if programs cannot be isolated here, HostExhausted if they cannot at present."""
        ...

    async def execute(
        self, command: Command, files: "ExecutorFiles", on_line: OnLine, caller: ExecutionCaller
    ) -> Execution:
        """Materialise the workspace, run the program, store its changes.

        If the calling task is cancelled, the whole process tree is dead before CancelledError leaves this method. An
        executor whose programs outlive their worker leaves the program running if the run continues elsewhere, and
        warns if it has not been able to end the program yet.
        Raises ExecutorUnavailable, HostExhausted, FilesUnavailable, LimitExceeded, LeaseLost.
        """
        ...

    async def adopt(
        self, command: Command, begun: "OpenExecution", files: "ExecutorFiles", on_line: OnLine, caller: ExecutionCaller
    ) -> Execution | None:
        """Continue an execution that a former owner of the run has begun; all its lines are passed on from the first.

        None: it has ended without a result, and nothing of it runs or will run. An executor whose programs end with
        their worker always returns None. Raises as `execute` does.
        """
        ...

    async def discard(self, run_id: str, begun: "OpenExecution") -> None:
        """Remove an execution that nobody will adopt: its result is journaled, or the run has ended.

        A program that still runs is killed. Returns before that is done, if it takes longer, and never raises.
        """
        ...

    def end_unowned(self, run_id: str | None) -> None:
        """End the programs of a run that has ended while no worker owned it; None: of all such runs.

        Returns at once. Other workers may do the same. An executor whose programs end with their worker does nothing.
        """
        ...

    async def open(self, command: Command, max_reply_bytes: int, fence: int) -> Session:
        """Start a program that answers requests, in a sandbox with a folder of its own in place of the workspace.

        A request and a reply are each a length of 4 bytes, big-endian, and that number of bytes; the program reads
        requests from stdin and writes replies to stdout. It is killed after `command.timeout_s`, and soon after the
        claim of the run with this fence is over. Raises ExecutorUnavailable, HostExhausted.
        """
        ...

    async def release(self, run_id: str) -> None:
        """Free all resources that the run's executions left behind."""
        ...
