"""Processes that the suite starts and harms, and what they leave behind."""

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
    """A process that may be killed and started again; the kernel ends it with the thread that started it.

    `folder` is where it works, and where Python looks for modules first. `expected` says whether its end was wanted.
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
        """Of the process that lives or lived last."""
        assert self._process
        return self._process.pid

    def start(self) -> None:
        """Start it; it must not live."""
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
        """Whether it lives; a stopped one does."""
        return self._process is not None and self._process.poll() is None

    def exit_code(self) -> int | None:
        """Of the process that lived last; minus the signal that ended it."""
        return self._process.poll() if self._process else None

    def send(self, number: signal.Signals) -> None:
        """Send a signal; one that ends the process is expected to."""
        if number not in {signal.SIGSTOP, signal.SIGCONT}:
            self.expected = True
        if self.is_alive():
            os.kill(self.pid, number)

    def end(self, number: signal.Signals = signal.SIGKILL, timeout_s: float = 30) -> None:
        """Send the signal and wait for the end."""
        self.send(number)
        if self._process:
            self._process.wait(timeout_s)

    def log(self) -> str:
        """All that it wrote, and others of its name before it."""
        return self._log.read_text() if self._log.exists() else ""


@contextmanager
def orphans_come_here() -> Iterator[None]:
    """Make the descendants of killed processes children of this one, so that none can be overlooked."""
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def orphans(known: Iterable[int]) -> dict[int, str]:
    """Children of this process that it did not start, with their command lines; those that have ended are reaped."""
    left: dict[int, str] = {}
    for pid in children_of(os.getpid()) - set(known):
        with suppress(OSError):
            if os.waitpid(pid, os.WNOHANG) == (0, 0):
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
                left[pid] = command.replace(b"\0", b" ").decode(errors="replace")[:200]
    return left


def now_ms() -> int:
    """The wall clock, as logs have it."""
    return time.time_ns() // 1_000_000
