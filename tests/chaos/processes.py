"""Processes that the suite starts and signals, and their orphans."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from infra.devstack import die_with_parent
from tests.support.processes import children_of

ROOT = Path(__file__).parents[2]
PR_SET_CHILD_SUBREAPER = 36


class Process:
    """Process that may be killed and started again. The kernel kills it when the thread that started it ends.

    `folder` is its working directory, where Python looks for modules first. `expected` says whether a signal that ends
    the process has been sent.
    """

    def __init__(
        self, name: str, command: Iterable[str], environment: Mapping[str, str], log: Path, *, folder: Path = ROOT
    ) -> None:
        self.name = name
        self.expected = False
        self.starts = 0
        self._command = [*command]
        self._environment = dict(environment)
        self._log = log
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Id of the running process, or of the last process."""
        assert self._process
        return self._process.pid

    def start(self) -> None:
        """Start the process, which must not be running."""
        assert not self.is_alive()
        self.expected = False
        self.starts += 1
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", die_with_parent.__file__, str(os.getpid()), *self._command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                cwd=self._folder,
                start_new_session=True,
            )

    def is_alive(self) -> bool:
        """Return whether the process is running. A process stopped by SIGSTOP counts as running."""
        return self._process is not None and self._process.poll() is None

    def exit_code(self) -> int | None:
        """Return the exit code of the last process (minus the signal number if a signal ended it), else None."""
        return self._process.poll() if self._process else None

    def send(self, number: signal.Signals) -> None:
        """Send a signal if the process is running. After any signal but SIGSTOP and SIGCONT its end is expected."""
        if number not in {signal.SIGSTOP, signal.SIGCONT}:
            self.expected = True
        if self._process:
            self._process.send_signal(number)  # which does nothing once the process has been reaped

    def end(self, number: signal.Signals = signal.SIGKILL, timeout_s: float = 30) -> None:
        """Send the signal and wait until the process has ended."""
        self.send(number)
        if self._process:
            self._process.wait(timeout_s)

    def log(self) -> str:
        """Return the output of this and all earlier processes with this log file."""
        return self._log.read_text() if self._log.exists() else ""


@contextmanager
def adopt_orphans() -> Iterator[None]:
    """Make the descendants of killed processes children of this process, so that `orphans` finds them."""
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def orphans(known: Iterable[int]) -> dict[int, str]:
    """Return id and command line of each child of this process outside `known`. Ended children are reaped."""
    found: dict[int, str] = {}
    for pid in children_of(os.getpid()) - set(known):
        with suppress(OSError):
            if os.waitpid(pid, os.WNOHANG) == (0, 0):
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
                found[pid] = command.replace(b"\0", b" ").decode(errors="replace")[:200]
    return found


def now_ms() -> int:
    """Return the wall-clock time in ms since the epoch, the unit of log events."""
    return time.time_ns() // 1_000_000
