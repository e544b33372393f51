"""Program of a pod: started, watched, and dead with all its processes before its end is reported.

The runner is PID 1, so every orphan becomes its child, and no process of the pod can kill the runner. A signal to all
processes therefore reaches exactly the processes of the program.
"""

import asyncio
import os
import select
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

from infra.contract.execution import Command
from infra.local_executor import guard, interpreters, machine, sandbox

TEMPORARY = Path("/tmp")  # noqa: S108
TEMPORARY_BYTES = 256 * 1024 * 1024
TEMPORARY_FILES = 65_536
"""Limits of `/tmp`, as in the local sandbox."""
WRITE_MS = 5000


@dataclass(frozen=True)
class Ending:
    """End of a program. `exit_code` is 128 + n if signal n ended it; `started` False if it was never run."""

    exit_code: int
    timed_out: bool
    started: bool
    duration_ms: int


@dataclass(frozen=True)
class MemoryFolderLimit:
    """Limit of the number of files in a file system in memory, whose size the kernel limits."""

    folder: Path
    entries: int

    def exceeded(self) -> str:
        """Return how the program exceeds it, or an empty text. A folder that does not exist holds nothing."""
        with suppress(OSError):
            found = os.statvfs(self.folder)
            if found.f_files - found.f_ffree > self.entries:
                return f"created more than its limit of {self.entries} files in {self.folder}"
        return ""


class Program:
    """Program that was started.

    `outputs` are the reading ends of stdout and stderr, for the caller to close.
    """

    def __init__(
        self,
        process: "subprocess.Popen[bytes]",
        script: Path,
        ready: int,
        outputs: tuple[int, int],
        error: int,
        input_pipe: int | None,
    ) -> None:
        self.outputs = outputs
        self._input = input_pipe
        self._script = script
        self._process = process
        self._ready = ready
        self._error = error
        self._pidfd = os.pidfd_open(process.pid)
        self._started_s = time.monotonic()
        self._stop_reader, self._stop_writer = os.pipe()
        self._lock = Lock()
        self._has_ended = False

    async def writer(self) -> asyncio.WriteTransport:
        """Return the transport to stdin of the program. Raises ValueError if that is empty."""
        if self._input is None:
            raise ValueError("the program was started without an input")
        pipe = os.fdopen(self._input, "wb", buffering=0)
        return (await asyncio.get_running_loop().connect_write_pipe(asyncio.BaseProtocol, pipe))[0]

    def stop(self) -> None:
        """Make `wait` kill the program, from any thread; does nothing once it has ended."""
        with self._lock:
            if not self._has_ended:
                os.write(self._stop_writer, b"x")

    def wait(self, timeout_s: float, memory_bytes: int, disks: Sequence[Callable[[], str]]) -> Ending:
        """Wait for the end of the program, or kill it at a limit or when stopped. All its processes are dead then."""
        exceeded, timed_out, code = "", False, None
        memory, storage = guard.MemoryLimit(memory_bytes), guard.StorageLimits(disks)
        poll = select.poll()
        poll.register(self._stop_reader, select.POLLIN)
        poll.register(self._pidfd, select.POLLIN)
        while code is None and not exceeded and not timed_out:
            left_ms = int(1000 * (self._started_s + timeout_s - time.monotonic())) + 1
            if poll.poll(max(0, min(guard.TICK_MS, left_ms))):
                break
            code = self._reap_orphans()
            timed_out = code is None and time.monotonic() - self._started_s >= timeout_s
            if memory.is_exceeded():
                exceeded = f"used more memory than its limit of {memory_bytes // 1024**2} MB"
            else:
                exceeded = storage.exceeded()
        code = self._kill_all(code)
        duration_ms = int((time.monotonic() - self._started_s) * 1000)
        if exceeded and _is_writable(self._error):
            os.write(self._error, f"\nkilled: the program {exceeded}\n".encode())
        # An interpreter that could not be started leaves the FIFO with its script.
        with suppress(OSError):
            if stat.S_ISFIFO(self._script.lstat().st_mode):
                self._script.unlink()
        # The launcher writes one byte before it becomes the program.
        started = bool(os.read(self._ready, 1))
        with self._lock:
            self._has_ended = True
            for fd in (self._ready, self._error, self._pidfd, self._stop_reader, self._stop_writer):
                os.close(fd)
        return Ending(code, timed_out, started, duration_ms)

    def _kill_all(self, code: int | None) -> int:
        while True:
            with suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
            try:
                pid, status = os.waitpid(-1, 0)
            except ChildProcessError:
                self._process.returncode = guard.KILLED if code is None else code
                return self._process.returncode
            if pid == self._process.pid:
                code = _exit_code(status)

    def _reap_orphans(self) -> int | None:
        """Reap ended processes, because zombies count as processes; return the program's exit code if it is known."""
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == self._process.pid:
                    return _exit_code(ended[1])
        return None


def start(command: Command, home: Path, uid: int, proxy_url: str, *, with_input: bool = False) -> Program:
    """Start the program; under another `uid` if that is not 0. Raises ExecutorUnavailable, OSError.

    `proxy_url`: URL of its proxy; empty if it has no network. Without `with_input` it reads an empty stdin.
    """
    python = sandbox.python_home()
    name = interpreters.script_name(command, home)
    proxy = machine.proxy_environment(proxy_url) if proxy_url else machine.OFFLINE
    folder = TEMPORARY / ".program"
    folder.mkdir(mode=0o755, exist_ok=True)
    script = interpreters.script(command, sandbox.interpreter(command), str(folder), str(home / name))
    for path, text in script.files.items():
        Path(path).write_text(text)
    with ExitStack() as on_error, ExitStack() as theirs:
        pipes = [_pipe(on_error, theirs, uid) for _ in ("ready", "stdout", "stderr")]
        input_theirs, input_ours = _input(on_error, theirs) if with_input else (subprocess.DEVNULL, None)
        error = os.dup(pipes[2][1])
        on_error.callback(os.close, error)
        if not uid:
            # The kernel counts the threads of all processes with this uid, the threads of the runner included.
            processes = command.limits.processes + len(os.listdir("/proc/self/task"))  # noqa: PTH208
            command = replace(command, limits=replace(command.limits, processes=processes))
        launched = sandbox.launched(python, uid, pipes[0][1], command, script, count_processes=True)
        process = subprocess.Popen(
            launched,
            stdin=input_theirs,
            stdout=pipes[1][1],
            stderr=pipes[2][1],
            env={**machine.environment(str(home), python, command.limits), **proxy},
            pass_fds=(pipes[0][1],),
            cwd="/",
            start_new_session=True,
        )
        on_error.pop_all()
    return Program(process, home / name, pipes[0][0], (pipes[1][0], pipes[2][0]), error, input_ours)


async def reader_of(output: int) -> asyncio.StreamReader:
    """Return a reader of the reading end of a pipe, which is closed at its end."""
    reader = asyncio.StreamReader()
    pipe = os.fdopen(output, "rb", buffering=0)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    return reader


def _pipe(on_error: ExitStack, theirs: ExitStack, uid: int) -> tuple[int, int]:
    reading, writing = os.pipe()
    on_error.callback(os.close, reading)
    theirs.callback(os.close, writing)
    if uid:
        # Otherwise the program could write to the pipe, but not open it again as /dev/stdout.
        os.fchown(writing, uid, uid)
    return reading, writing


def _input(on_error: ExitStack, theirs: ExitStack) -> tuple[int, int]:
    reading, writing = os.pipe()
    theirs.callback(os.close, reading)
    on_error.callback(os.close, writing)
    return reading, writing


def _is_writable(pipe: int) -> bool:
    """Return True once a short text fits into the pipe; False if its reader has stopped."""
    poll = select.poll()
    poll.register(pipe, select.POLLOUT)
    return poll.poll(WRITE_MS) == [(pipe, select.POLLOUT)]


def _exit_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code
