"""Programs run by the real executor, and what they leave on the host."""

import os
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from infra.contract.execution import Command, ExecLimits, Execution
from infra.contract.files import FileChanges
from infra.local_executor import LocalExecutor
from infra.local_executor.scratch_root import LOCK

MB = 1024 * 1024
Interpreter = Literal["sh", "bash", "python", "node"]


class PlainFiles:
    """A workspace that is nothing but the executor's directory; `seen` is that directory."""

    def __init__(self) -> None:
        self.seen = Path("/nowhere")
        self.stored = 0

    async def materialise(self, directory: Path) -> None:
        self.seen = directory

    async def store_changes(self, directory: Path) -> FileChanges:
        self.stored += 1
        return FileChanges(written=[], deleted=[], skipped=[])

    async def check(self, directory: Path) -> None:
        return


@dataclass
class Ran:
    """An execution that ended, the lines that it logged, and which of them were said to go on."""

    ended: Execution
    lines: list[tuple[str, str]]
    unfinished: list[bool]

    @property
    def out(self) -> str:
        """What was kept of its standard output."""
        return self.ended.stdout.read_text(errors="replace")

    @property
    def err(self) -> str:
        """What was kept of its standard error."""
        return self.ended.stderr.read_text(errors="replace")

    @property
    def code(self) -> int | None:
        """Its exit code."""
        return self.ended.exit_code


@dataclass
class Bench:
    """An executor with a scratch directory of its own. `marker` finds the processes of a test on the host."""

    executor: LocalExecutor
    root: Path
    marker: str = field(default_factory=lambda: f"marker-{uuid.uuid4().hex}")
    files: PlainFiles = field(default_factory=PlainFiles)

    async def run(
        self,
        source: str,
        interpreter: Interpreter = "sh",
        *,
        run_id: str = "run-1",
        call: str = "step-0",
        timeout_s: float = 60,
        limits: ExecLimits | None = None,
        on_line: Callable[[str, str], None] | None = None,
        files: PlainFiles | None = None,
    ) -> Ran:
        """Execute a program; MARKER in its text is replaced."""
        lines: list[tuple[str, str]] = []
        unfinished: list[bool] = []

        async def line(stream: str, text: str, more: bool) -> None:
            lines.append((stream, text))
            unfinished.append(more)
            if on_line:
                on_line(stream, text)

        text = source.replace("MARKER", self.marker)
        command = Command(run_id, call, interpreter, text, timeout_s, limits or ExecLimits())
        return Ran(await self.executor.execute(command, files or self.files, line), lines, unfinished)

    def left(self) -> list[str]:
        """What the executor keeps of its runs."""
        return left_in(self.root)

    def alive(self) -> list[int]:
        """The processes of this test that the host still has."""
        return processes_with(self.marker)


def left_in(home: Path) -> list[str]:
    """All that is in a worker's own folder but what says that it is one."""
    return sorted(path.name for path in home.iterdir() if path.name != LOCK)


def processes_with(marker: str) -> list[int]:
    """The pids of all processes but this one whose command lines hold the marker; the dead (zombies) have none."""
    needle = marker.encode()
    return [pid for pid in pids() if pid != os.getpid() and needle in _read(Path(f"/proc/{pid}/cmdline"))]


def pids() -> Iterable[int]:
    """All processes that this one may see."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208


def children_of(parent: int) -> set[int]:
    """The direct children of a process, zombies too."""
    return {pid for pid in pids() if _parent(pid) == parent}


def open_fds() -> dict[str, str]:
    """The open descriptors of this process, and what each one is."""
    found = {}
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115
        except FileNotFoundError:
            continue  # that of the listing itself
    return found


def _parent(pid: int) -> int:
    fields = _read(Path(f"/proc/{pid}/stat")).rpartition(b")")[2].split()
    return int(fields[1]) if fields else 0


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
