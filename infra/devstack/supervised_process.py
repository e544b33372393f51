"""One child process: started until it is ready, restarted after a crash, stopped. Dies with its parent."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from infra.devstack import die_with_parent
from infra.devstack.errors import StackError
from infra.devstack.exit_reason import exit_reason
from infra.devstack.processes import ProcessSpec

FIRST_DELAY_S = 0.5
MAX_DELAY_S = 30.0
RESET_AFTER_S = 60.0
"""A process that ran this long before its crash is restarted with the first delay again."""

_PAUSE_S = 0.03
_TAIL_BYTES = 64 * 1024
_LINE_CHARS = 300

_CRASHES = frozenset({signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGSYS})
"""Signals that a process causes itself. The log has no reason for the others, which another process sends."""

Report = Callable[[str], None]
"""Callback for one line of text for users."""


class SupervisedProcess:
    """Child process in a new session, so that Ctrl-C in a terminal reaches only the parent.

    `is_ready(begin)` is one readiness check, called in a thread; `begin` is the size of the log before this start.
    `clean_up` removes files that the process leaves behind; it is called before each start and after each end.
    The process inherits the descriptors `keep_open`.
    """

    def __init__(
        self,
        spec: ProcessSpec,
        log: Path,
        is_ready: Callable[[int], bool],
        *,
        keep_open: Sequence[int] = (),
        clean_up: Callable[[], None] = lambda: None,
    ) -> None:
        self.spec = spec
        self._log = log
        self._is_ready = is_ready
        self._keep_open = keep_open
        self._clean_up = clean_up
        self._process: asyncio.subprocess.Process | None = None
        self._begin = 0

    @property
    def pid(self) -> int | None:
        """Process id; None if no process is running."""
        process = self._process
        return process.pid if process and process.returncode is None else None

    async def start(self) -> None:
        """Start the process and wait until it is ready.

        Raises StackError if it ends or is not ready in time; in the second case it is still running.
        """
        self._clean_up()
        with self._log.open("ab") as log:
            os.fchmod(log.fileno(), 0o600)
            self._begin = log.tell()
            self._process = await asyncio.create_subprocess_exec(
                *[sys.executable, "-I", "-S", die_with_parent.__file__, str(os.getpid()), *self.spec.command],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.spec.environment,
                cwd=self.spec.folder,
                start_new_session=True,
                pass_fds=self._keep_open,
            )
        process = self._process
        ended = asyncio.create_task(process.wait())
        try:
            async with asyncio.timeout(self.spec.start_timeout_s):
                # `ended` is checked even if the probe succeeds: another program on the same port may have answered it.
                while not await asyncio.to_thread(self._is_ready, self._begin) or ended.done():
                    if ended.done():
                        raise StackError(self._end())
                    await asyncio.wait({ended}, timeout=_PAUSE_S)
        except TimeoutError:
            raise StackError(
                self._described(f"is not ready after {self.spec.start_timeout_s:g} s", exit_reason(self._logged()))
            ) from None
        finally:
            ended.cancel()

    async def supervise(self, report: Report) -> None:
        """Restart the process after each end, with exponential backoff, until cancelled. Call `start` first."""
        loop, delay_s = asyncio.get_running_loop(), FIRST_DELAY_S
        failed_start: str | None = None
        while self._process:
            started_s = loop.time()
            await self._process.wait()
            self._kill_group()
            if loop.time() - started_s > RESET_AFTER_S:
                delay_s = FIRST_DELAY_S
            report(f"{failed_start or self._end()}; starting it again in {delay_s:g} s")
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, MAX_DELAY_S)
            try:
                await self.start()
            except (StackError, OSError) as exc:
                # Kept, because the process may still run: `stop` kills it, and its end would hide this reason.
                failed_start = str(exc)
                await self.stop()
            else:
                failed_start = None
                report(f"{self.spec.name} is up again")

    async def stop(self) -> None:
        """Send the stop signal, after the stop timeout SIGKILL. Then kill the rest of its process group."""
        process = self._process
        if process is None:
            return
        try:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.send_signal(self.spec.stop_signal)
                async with asyncio.timeout(self.spec.stop_timeout_s):
                    await process.wait()
        except TimeoutError:
            self.kill()
            await process.wait()
        finally:
            self._kill_group()

    def kill(self) -> None:
        """Send SIGKILL to its process group. Can be called from any thread."""
        if pid := self.pid:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)

    def _kill_group(self) -> None:
        """Kill processes that the ended process left in its group, and clean up."""
        if self._process:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._clean_up()

    def _end(self) -> str:
        """Return a sentence with the process's exit code or signal, the reason in its log, and the path of its log."""
        code = self._process.returncode if self._process else None
        if code is not None and code < 0 and -code not in _CRASHES:
            return self._described(f"was ended by {signal.Signals(-code).name}", None)
        end = (
            f"ended with exit code {code}"
            if code is None or code >= 0
            else f"crashed with {signal.Signals(-code).name}"
        )
        return self._described(end, exit_reason(self._logged()) or "its log gives no reason")

    def _described(self, event: str, reason: str | None) -> str:
        detail = f": {reason[:_LINE_CHARS]}" if reason else ""
        return f"{self.spec.name} {event}{detail} ({self._log})"

    def _logged(self) -> str:
        """Return the last part of the log that the process wrote since this start."""
        with self._log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(self._begin, size - _TAIL_BYTES))
            return file.read().decode(errors="replace")
