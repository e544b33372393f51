"""Bench for a real executor: runs programs, and looks at their files and processes on the host."""

import asyncio
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from infra.contract.execution import Command, ExecLimits, Execution, LinePart, OnLine, Session
from infra.contract.files import DirectoryFiles, FileChanges
from infra.scratch_root import LOCK
from tests.support.processes import processes_with

REPOSITORY = Path(__file__).parents[2]
MB = 1024 * 1024
RUN_ID = f"run-{os.getpid()}"
"""Run of most tests. Programs of a run share a uid and its limit of processes, so each test process has its own run."""
Interpreter = Literal["sh", "bash", "python", "node"]

DAEMON = """
import os, signal, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
reading, writing = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execv('/bin/sh', ['sh', '-c', 'sleep 3600; : MARKER'])
    os._exit(0)
os.close(writing)
os.read(reading, 1)
print('up', flush=True)
time.sleep(3600)
"""
"""Prints `up` once its daemon runs in another session, ignores signals, and keeps stdout open. Then sleeps."""


class PlainFiles:
    """Implements the port `DirectoryFiles` without a store. `directory` is the executor's workspace."""

    def __init__(self) -> None:
        self.directory = Path("/nowhere")
        self.stored = 0

    async def materialise(self, directory: Path) -> None:
        self.directory = directory

    async def store_changes(self, directory: Path) -> FileChanges:
        self.stored += 1
        return FileChanges(written=[], deleted=[], skipped=[])

    async def check(self, directory: Path) -> None:
        return


class ClosableExecutor(Protocol):
    """Executor that leaves nothing behind, and needs the workspace as a directory alone."""

    async def check(self) -> None:
        """See the port `Executor`."""
        ...

    async def execute(self, command: Command, files: DirectoryFiles, on_line: OnLine) -> Execution:
        """See the port `Executor`."""
        ...

    async def open(self, command: Command, max_reply_bytes: int, fence: int) -> Session:
        """See the port `Executor`."""
        ...

    async def release(self, run_id: str) -> None:
        """See the port `Executor`."""
        ...

    def close(self) -> None:
        """Remove what is left."""
        ...


@dataclass
class BenchResult:
    """Result of an execution, and its lines: as (stream, text), and as they were passed on."""

    execution: Execution
    lines: list[tuple[str, str]]
    parts: list[LinePart]

    @property
    def continues(self) -> list[bool]:
        """For each line whether it continues."""
        return [part.more for part in self.parts]

    @property
    def out(self) -> str:
        """Stored part of stdout."""
        return self.execution.stdout.read_text(errors="replace")

    @property
    def err(self) -> str:
        """Stored part of stderr."""
        return self.execution.stderr.read_text(errors="replace")

    @property
    def code(self) -> int | None:
        """Exit code."""
        return self.execution.exit_code


@dataclass
class Bench:
    """Executor with its scratch folder `root`. `marker` identifies processes of the test on the host."""

    executor: ClosableExecutor
    root: Path
    marker: str = field(default_factory=lambda: f"marker-{uuid.uuid4().hex}")
    files: PlainFiles = field(default_factory=PlainFiles)

    async def run(
        self,
        source: str,
        interpreter: Interpreter = "sh",
        *,
        run_id: str = RUN_ID,
        call: str = "step-0",
        timeout_s: float = 60,
        limits: ExecLimits | None = None,
        on_line: Callable[[str, str], None] | None = None,
        files: PlainFiles | None = None,
        network: Sequence[str] = (),
    ) -> BenchResult:
        """Execute a program. MARKER in its source is replaced."""
        lines: list[tuple[str, str]] = []
        parts: list[LinePart] = []

        async def add(stream: str, part: LinePart) -> bool:
            lines.append((stream, part.text))
            parts.append(part)
            if on_line:
                on_line(stream, part.text)
            return True

        text = source.replace("MARKER", self.marker)
        command = Command(run_id, call, interpreter, text, timeout_s, limits or ExecLimits(), tuple(network))
        execution = await self.executor.execute(command, files or self.files, add)
        return BenchResult(execution, lines, parts)

    async def start(
        self, source: str, *, run_id: str = RUN_ID, files: PlainFiles | None = None
    ) -> "asyncio.Task[BenchResult]":
        """Start a Python program; return its task once it has printed a line."""
        printed = asyncio.Event()
        running = asyncio.ensure_future(
            self.run(source, "python", run_id=run_id, files=files, on_line=lambda *_: printed.set(), timeout_s=100)
        )
        waiting = asyncio.ensure_future(printed.wait())
        await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED, timeout=60)
        assert printed.is_set(), running
        return running

    def left(self) -> list[str]:
        """Return the entries of the scratch folder."""
        return scratch_content(self.root)

    def alive(self) -> list[int]:
        """Return the pids of the test's processes."""
        return processes_with(self.marker)


@contextmanager
def worker_process(root: Path, marker: str, mode: str, count: int) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a worker in another process that starts `count` programs. `mode` is `sandbox` or `unsafe`."""
    argv = [sys.executable, "-m", "tests.local_executor.worker_program", str(root), marker, mode, str(count)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=REPOSITORY)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for_programs(process: "subprocess.Popen[bytes]", count: int) -> None:
    """Wait until all programs of a `worker_process` run."""
    assert process.stdout
    assert [process.stdout.readline() for _ in range(1 + count)] == [b"begin\n", *[b"up\n"] * count]


def scratch_content(root: Path) -> list[str]:
    """Return the names in a worker's scratch folder, without its lock file."""
    return sorted(path.name for path in root.iterdir() if path.name != LOCK)
