"""One child process: started until it is ready, watched, stopped. It dies with its parent, whatever kills that."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from infra.devstack import die_with_parent as bound
from infra.devstack.errors import StackError
from infra.devstack.processes import Part

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0
CALM_S = 60.0
"""A child that ran for so long may begin with the first delay again."""

_PAUSE_S = 0.03
_TAIL_BYTES = 4096
_LINE_CHARS = 300

Report = Callable[[str], None]
"""Takes one line for people."""


class Child:
    """A part as a process in a session of its own, so that Ctrl-C reaches the parent alone.

    `is_ready(begin)` is one look, in a thread; `begin` is where this start begins in the log. `tidy` removes what the
    process leaves behind; it is called before each start and after each end. It inherits the descriptors `keep_open`.
    """

    def __init__(
        self,
        part: Part,
        log: Path,
        is_ready: Callable[[int], bool],
        *,
        keep_open: Sequence[int] = (),
        tidy: Callable[[], None] = lambda: None,
    ) -> None:
        self.part = part
        self._log = log
        self._is_ready = is_ready
        self._keep_open = keep_open
        self._tidy = tidy
        self._process: asyncio.subprocess.Process | None = None
        self._begin = 0

    @property
    def pid(self) -> int | None:
        """The process that lives now."""
        process = self._process
        return process.pid if process and process.returncode is None else None

    async def start(self) -> None:
        """Start it and wait until it is ready. Raises StackError if it ends or takes too long; it may live still."""
        self._tidy()
        with self._log.open("ab") as log:
            os.fchmod(log.fileno(), 0o600)
            self._begin = log.tell()
            self._process = await asyncio.create_subprocess_exec(
                *[sys.executable, "-I", "-S", bound.__file__, str(os.getpid()), *self.part.command],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.part.environment,
                cwd=self.part.folder,
                start_new_session=True,
                pass_fds=self._keep_open,
            )
        process = self._process
        ended = asyncio.create_task(process.wait())
        try:
            async with asyncio.timeout(self.part.start_timeout_s):
                while not await asyncio.to_thread(self._is_ready, self._begin) or ended.done():
                    if ended.done():
                        raise StackError(f"{self.part.name} {self._how_it_ended()}{self._last_words()}")
                    await asyncio.wait({ended}, timeout=_PAUSE_S)
        except TimeoutError:
            raise StackError(
                f"{self.part.name} is not ready after {self.part.start_timeout_s:g} s{self._last_words()}"
            ) from None
        finally:
            ended.cancel()

    async def supervise(self, report: Report) -> None:
        """Start it again whenever it ends, after a growing delay, until cancelled. It must have been started once."""
        loop, delay_s = asyncio.get_running_loop(), FIRST_DELAY_S
        while self._process:
            began = loop.time()
            await self._process.wait()
            self._sweep()
            if loop.time() - began > CALM_S:
                delay_s = FIRST_DELAY_S
            report(f"{self.part.name} {self._how_it_ended()}; starting it again in {delay_s:g} s{self._last_words()}")
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, LONGEST_DELAY_S)
            try:
                await self.start()
            except (StackError, OSError):
                await self.stop()
            else:
                report(f"{self.part.name} is up again")

    async def stop(self) -> None:
        """End it: the stop signal, and after its time SIGKILL. Nothing of its session is left."""
        process = self._process
        if process is None:
            return
        try:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.send_signal(self.part.stop_signal)
                async with asyncio.timeout(self.part.stop_timeout_s):
                    await process.wait()
        except TimeoutError:
            self.kill()
            await process.wait()
        finally:
            self._sweep()

    def kill(self) -> None:
        """SIGKILL, now. May be called from any thread."""
        if pid := self.pid:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)

    def _sweep(self) -> None:
        """End what the process has started and left in its session."""
        if self._process:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._tidy()

    def _how_it_ended(self) -> str:
        code = self._process.returncode if self._process else None
        if code is None:
            return "has not ended"
        return f"ended with exit code {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"

    def _last_words(self) -> str:
        """The last line that it wrote since it was started, and where there is more."""
        with self._log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(self._begin, size - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it wrote nothing")
        return f": {last[:_LINE_CHARS]} ({self._log})"
