"""What the domain needs from the outside, each as narrow as the wire."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, Self, TypeAlias

from infra.contract.models import Event, FileChanges, FileEntry, FileInfo, RunHead, Segment
from infra.contract.scripts import Script

Reply: TypeAlias = "str | int | list[Reply] | None"
Argument: TypeAlias = str | int | float


class Redis(Protocol):
    """A Redis, over REST or TCP. Replies have RESP2 shapes with text decoded as UTF-8.

    Every method raises StoreUnavailable if there was no answer in time (the command may have been executed), and
    StoreRejected if Redis answered with an error.
    """

    async def command(self, *args: Argument) -> Reply:
        """Run one command. It must be safe to repeat: it may be, if others that shared its request were refused."""
        ...

    async def pipeline(self, commands: Sequence[Sequence[Argument]]) -> list[Reply]:
        """Run commands in one round trip, not atomically. The first error is raised after all have run."""
        ...

    async def script(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Reply:
        """Run a script by its digest, sending its text only if the server does not know it."""
        ...


class LogFeed(Protocol):
    """Live messages of a channel."""

    def subscribe(self, channel: str) -> AbstractAsyncContextManager[AsyncIterator[str]]:
        """Enter once the subscription is confirmed; iterate over messages until the upstream ends.

        Raises StoreUnavailable if it cannot be had. The iterator just ends when the upstream ends, however it ends.
        """
        ...


Changes: TypeAlias = Mapping[str, FileEntry | None]
"""What was done in a workspace, by path; None: deleted."""


class RunFiles(Protocol):
    """The workspace of one claimed run. What is changed here is seen by others once `uncommitted` has been stored.

    All that fetch or store bytes raise FilesUnavailable if the object store fails, and WorkerShort.
    """

    async def read(self, path: str, max_bytes: int | None = None) -> bytes:
        """The file's bytes, at most the first `max_bytes`. Raises FileMissing."""
        ...

    async def write(self, path: str, data: bytes) -> FileInfo:
        """Store a whole file. Raises LimitExceeded."""
        ...

    async def list(self, folder: str = "") -> list[FileInfo]:
        """All files, or those below one folder, sorted by path."""
        ...

    async def delete(self, path: str) -> None:
        """Delete a file. Raises FileMissing."""
        ...

    async def materialise(self, directory: Path) -> None:
        """Make `directory` hold just the workspace's files; fetches only what is not there yet."""
        ...

    async def store_changes(self, directory: Path) -> FileChanges:
        """Store what changed in `directory` since it was materialised. Raises LimitExceeded, nothing stored then."""
        ...

    async def check(self, directory: Path) -> None:
        """Raise LimitExceeded if `directory` holds more than could be stored; nothing is stored."""
        ...

    def uncommitted(self) -> dict[str, FileEntry | None]:
        """Take what has changed since the last call (None: deleted), to be stored with the run's next fenced write."""
        ...

    async def adopt(self, source: Self, changes: Sequence[Changes]) -> Sequence[Changes]:
        """Do here what was done in another run's workspace, change by change; the same with entries of this run.

        Also what later changes undo is copied, within the store: somebody may want the workspace as it was before.
        """
        ...

    async def keep(self, data: bytes) -> str:
        """Store bytes that are no file of the workspace; the name they are kept under."""
        ...

    async def kept(self, name: str) -> bytes:
        """The bytes that were kept under a name. Raises FileMissing."""
        ...


class LogArchive(Protocol):
    """Segments of logs, kept in the object store. Everything raises FilesUnavailable if that fails, and WorkerShort."""

    async def store(self, run: RunHead, segment: Segment, events: Sequence[Event]) -> None:
        """Store the events of a segment. It counts once the run's record names it."""
        ...

    async def discard(self, run: RunHead, segment: Segment) -> None:
        """Delete a segment that no record names."""
        ...

    def read(self, run: RunHead, segment: Segment, *, after: int) -> AsyncGenerator[list[Event], None]:
        """The events of a segment from `after + 1` on, some at a time. Raises FileMissing."""
        ...


@dataclass(frozen=True)
class ExecLimits:
    """Limits of one execution."""

    memory_bytes: int = 1024 * 1024 * 1024
    file_bytes: int = 256 * 1024 * 1024
    processes: int = 256
    output_bytes: int = 16 * 1024 * 1024
    """Of stdout and of stderr each; what is beyond is discarded and counted."""


@dataclass(frozen=True)
class Command:
    """A program to execute in a run's workspace. `call` names it within the run, such as `step-3`.

    `interpreter` names what the executor must find; `source` is its program text.
    """

    run_id: str
    call: str
    interpreter: Literal["sh", "bash", "python", "node"]
    source: str
    timeout_s: float
    limits: ExecLimits = field(default_factory=ExecLimits)


@dataclass(frozen=True)
class Execution:
    """How an execution ended.

    `exit_code` is None if it was killed at its timeout; 128 + n if signal n ended it. `stdout` and `stderr` are files
    with the output up to the limit, `*_bytes` what was produced in all. They live until `release`.
    """

    exit_code: int | None
    timed_out: bool
    duration_ms: int
    stdout: Path
    stderr: Path
    stdout_bytes: int
    stderr_bytes: int
    changes: FileChanges


OnLine: TypeAlias = Callable[[Literal["stdout", "stderr"], str, bool], Awaitable[None]]
"""Called with each line of output (without its end) as it appears. A long line comes in parts; the last argument says
whether the line goes on. Awaited, so that a slow log slows the program instead of losing lines."""


class Executor(Protocol):
    """Executes programs in isolation."""

    async def check(self) -> None:
        """Raise ExecutorUnavailable if programs cannot be isolated here, WorkerShort if they cannot just now."""
        ...

    async def execute(self, command: Command, files: RunFiles, on_line: OnLine) -> Execution:
        """Materialise the workspace, run the program, store what it changed.

        If the calling task is cancelled, the whole process tree is dead before CancelledError leaves this method.
        Raises ExecutorUnavailable, WorkerShort, FilesUnavailable, LimitExceeded.
        """
        ...

    async def release(self, run_id: str) -> None:
        """Free all that the run's executions left behind."""
        ...
