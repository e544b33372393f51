"""Entry point: waits for a start at the control port, runs one call or one session, and ends with 0.

A call ends once its result is stored, a session when its worker is done or lost.

Variables: RUNNER_PORT, RUNNER_TOKEN_SHA256 (hex digest of the token), RUNNER_START_S (longest wait for the start,
300), RUNNER_UID (uid of the program, if the runner is root). None of them is a secret. The pod log gets the numbered
lines, and lines such as `{"runner": "listening", "port": 8700}`.
"""

import asyncio
import ctypes
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

from infra.contract.errors import ContractError, ExecutorUnavailable
from infra.pod_runner.call import PodCall
from infra.pod_runner.control import ControlPort
from infra.pod_runner.line_log import LineLog
from infra.pod_runner.session import PodSession
from infra.pod_runner.task import BadManifest, UnexpectedRequest, parse_session
from infra.pod_runner.transfer import TransferFailed

WORKSPACE = Path("/workspace")
BAD_SETTINGS, NOT_STARTED, NOT_STORED = 2, 3, 4
"""Exit codes: the settings are wrong; no start came; the result could not be stored."""
DRAIN_S = 5.0
"""Longest wait for followers and for the pod log after the result is stored."""
PR_SET_DUMPABLE = 4
SIGNALS = {signal.SIGTERM, signal.SIGINT}
CAPABILITIES = {"CHOWN": 0, "DAC_OVERRIDE": 1, "FOWNER": 3, "KILL": 5, "SETGID": 6, "SETUID": 7}
"""Capabilities, by their numbers in the kernel, without which root cannot run the program under another uid."""


class BadSettings(Exception):
    """Settings with which the runner cannot do its work."""


@dataclass(frozen=True)
class RunnerSettings:
    """Settings of the runner. `uid` is 0 if the program has the uid of the runner."""

    port: int
    token_sha256: str
    start_s: int
    uid: int


class PodRunner:
    """Runner of one call or one session. Implements Controlled."""

    def __init__(self, settings: RunnerSettings) -> None:
        self._settings = settings
        self._started = asyncio.Event()
        self._id = ""
        self._call: PodCall | None = None
        self._opening: asyncio.Future[PodSession] | None = None
        self._control = ControlPort(settings.token_sha256, self)

    async def serve(self) -> int:
        """Wait for the start, carry out the call or the session, and return the exit code."""
        loop = asyncio.get_running_loop()
        Thread(target=_wait_for_signals, args=(lambda: loop.call_soon_threadsafe(self._stop),), daemon=True).start()
        server, port = await self._control.listen(self._settings.port)
        _report("listening", port=port)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.start_s):
                await self._started.wait()
        if self._opening:
            _report("ended", reason=await self._keep_open(self._opening))
            await self._control.drain(DRAIN_S)
            return 0
        if self._call is None:
            _report("ended", reason="no start came")
            return NOT_STARTED
        problem = await self._carry_out(self._call)
        self._control.finish({"end": True, "problem": problem})
        await self._control.drain(DRAIN_S)
        server.close()
        _report("ended", reason=problem or "the result is stored")
        return NOT_STORED if problem else 0

    def start(self, name: str, url: str) -> str:
        """See Controlled."""
        # A second start, such as the next owner of the run makes, finds the first one. After a stop nothing is started.
        if self._call is None and not self._started.is_set():
            self._id = name
            self._call = PodCall(url, WORKSPACE, self._settings.uid)
            self._started.set()
        return self._id

    async def open(self, name: str, task: bytes) -> str:
        """See Controlled."""
        if not self._started.is_set():
            self._id = name
            self._opening = asyncio.ensure_future(PodSession.start(parse_session(task), self._settings.uid))
            self._started.set()
        if self._opening:
            try:
                await asyncio.shield(self._opening)
            except OSError as error:
                raise ExecutorUnavailable(f"the program could not be started: {error}") from error
        return self._id

    async def ask(self, number: int, request: bytes) -> bytes:
        """See Controlled."""
        session = self._session()
        session.hear()
        return await session.ask(number, request)

    def keep(self) -> str:
        """See Controlled."""
        return self._session().hear()

    async def cancel(self) -> None:
        """See Controlled."""
        self._stop()
        if self._call:
            await self._call.program_dead.wait()
        if self._opening:
            with suppress(ContractError, OSError):
                await (await self._opening).program_dead.wait()

    async def _keep_open(self, opening: "asyncio.Future[PodSession]") -> str:
        """Wait until the session is over; return the reason."""
        try:
            return await (await opening).wait()
        except (ContractError, OSError) as error:
            return f"the session could not be started: {error}"

    async def _carry_out(self, call: PodCall) -> str:
        """Carry out the call; return why its result could not be stored, or an empty text."""
        log, copying = None, None
        try:
            task = await call.fetch()
            log = LineLog(task.line_bytes)
            self._control.publish(log)
            copying = asyncio.ensure_future(asyncio.to_thread(_copy_to_pod_log, log, asyncio.get_running_loop()))
            await call.run(task, log)
        except (TransferFailed, BadManifest, OSError) as error:
            return str(error)
        finally:
            call.program_dead.set()
            if log and copying:
                log.close()
                await asyncio.wait({copying}, timeout=DRAIN_S)
        return ""

    def _session(self) -> PodSession:
        if self._opening is None or not self._opening.done():
            raise UnexpectedRequest("no session is open")
        return self._opening.result()

    def _stop(self) -> None:
        if self._call:
            self._call.cancel()
        if self._opening:
            self._opening.add_done_callback(_cancel_session)
        self._started.set()


def _cancel_session(opened: "asyncio.Future[PodSession]") -> None:
    if not opened.cancelled() and opened.exception() is None:
        opened.result().cancel()


async def _serve_and_exit(settings: RunnerSettings) -> None:
    # Without waiting for threads: one blocks in a write to the pod log, if the container runtime has stalled.
    os._exit(await PodRunner(settings).serve())


def _wait_for_signals(stop: Callable[[], object]) -> None:
    """Call `stop` when the container runtime sends a signal. Signals of the program are ignored: it has a pid here."""
    while True:
        if signal.sigwaitinfo(SIGNALS).si_pid == 0:
            with suppress(RuntimeError):  # the event loop is closed
                stop()


def _copy_to_pod_log(log: LineLog, loop: asyncio.AbstractEventLoop) -> None:
    """Copy the lines to the pod log, in a thread: a slow container runtime delays neither program nor followers."""
    after = 0
    while asyncio.run_coroutine_threadsafe(log.wait(after, 60), loop).result():
        records, after = log.read(after)
        while records:
            records = records[os.write(1, records) :]


def _report(what: str, **fields: Any) -> None:
    os.write(1, json.dumps({"runner": what, **fields}).encode() + b"\n")


def settings_from(variables: Mapping[str, str]) -> RunnerSettings:
    """Read the settings. Raises BadSettings."""

    def number(name: str, default: str, lowest: int, highest: int) -> int:
        text = variables.get(name, default)
        if not re.fullmatch(r"[0-9]{1,10}", text) or not lowest <= int(text) <= highest:
            raise BadSettings(f"{name} must be a number from {lowest} to {highest}, not {text!r}")
        return int(text)

    token_sha256 = variables.get("RUNNER_TOKEN_SHA256", "")
    if not re.fullmatch(r"[0-9a-f]{64}", token_sha256):
        raise BadSettings("RUNNER_TOKEN_SHA256 must be the SHA-256 of the token as 64 hex digits")
    port = number("RUNNER_PORT", "", 0, 65535)
    start_s = number("RUNNER_START_S", "300", 1, 86_400)
    uid = number("RUNNER_UID", "0", 0, 2**31)
    if os.geteuid() != 0:
        return RunnerSettings(port, token_sha256, start_s, 0)
    if not uid:
        raise BadSettings("the runner is root; set RUNNER_UID to the uid of the program, or start it as another user")
    status = Path("/proc/self/status").read_text()
    held = int(status.partition("CapEff:")[2].split()[0], 16)
    missing = [name for name, bit in CAPABILITIES.items() if not held >> bit & 1]
    if missing:
        raise BadSettings(f"the runner is root without {', '.join(missing)}; start it as another user")
    return RunnerSettings(port, token_sha256, start_s, uid)


def main() -> int:
    """Run the runner, which ends the process; return the exit code if it cannot run."""
    try:
        if os.getpid() != 1:
            # It ends the program by a signal to all processes that it may signal.
            raise BadSettings("the runner must be the first process (PID 1) of a container")
        # No other process of the same user may look into this one: it holds the signed URLs.
        if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0):
            raise BadSettings("the kernel does not let the runner protect its memory")
        # Before any thread starts; the program unblocks all. The archive has blocked them before.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        asyncio.run(_serve_and_exit(settings_from(os.environ)))
    except BadSettings as error:
        print(error, file=sys.stderr)  # noqa: T201
    return BAD_SETTINGS


if __name__ == "__main__":
    sys.exit(main())
