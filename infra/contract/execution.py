"""Port to an executor, which runs programs in isolation."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:  # the runner in a pod imports this module, and has the standard library alone
    from infra.contract.files import DirectoryFiles, FileChanges

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


class Session(Protocol):
    """Program that answers requests until it is closed, its time is up, or it ends."""

    async def ask(self, request: bytes, timeout_s: float) -> bytes:
        """Send a request and return the reply; one at a time.

        If the calling task is cancelled, the whole process tree is dead before CancelledError leaves this method.
        Raises SessionLost if the program has ended, does not reply within `timeout_s`, or replies with too much; the
        session is closed then.
        """
        ...

    async def close(self) -> None:
        """Kill the whole process tree and return once it is dead. Can be called repeatedly."""
        ...


class Executor(Protocol):
    """Executor of programs."""

    async def check(self) -> None:
        """Raise ExecutorUnavailable if programs cannot be isolated here, HostExhausted if they cannot at present."""
        ...

    async def execute(self, command: Command, files: "DirectoryFiles", on_line: OnLine) -> Execution:
        """Materialise the workspace, run the program, store its changes.

        If the calling task is cancelled, the whole process tree is dead before CancelledError leaves this method.
        Raises ExecutorUnavailable, HostExhausted, FilesUnavailable, LimitExceeded.
        """
        ...

    async def open(self, command: Command, max_reply_bytes: int) -> Session:
        """Start a program that answers requests, in a sandbox with a folder of its own in place of the workspace.

        A request and a reply are each a length of 4 bytes, big-endian, and that number of bytes; the program reads
        requests from stdin and writes replies to stdout. It is killed after `command.timeout_s`. Raises
        ExecutorUnavailable, HostExhausted.
        """
        ...

    async def release(self, run_id: str) -> None:
        """Free all resources that the run's executions left behind."""
        ...
