"""Execution environment: one function process, which is started, frozen, thawed and killed as Lambda does it."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from tests.lambdas.call import Call
from tests.lambdas.runtime_api import RuntimeApi

GRACE_S = 10.0
"""Lambda kills at the deadline. On a busy test machine a function that responds in time may look late."""


class Environment:
    """Environment that takes one invocation at a time. The process is stopped in between.

    The process is killed `grace_s` after the deadline that it was given.
    """

    def __init__(self, command: Sequence[str], variables: Mapping[str, str], log: Path, timeout_s: float = 60) -> None:
        self._command = command
        self._variables = variables
        self._log = log
        self._timeout_s = timeout_s
        self._watching: asyncio.Task[None] | None = None
        self.process: asyncio.subprocess.Process | None = None
        self.starts = 0
        self.frozen = False
        self.grace_s = GRACE_S
        self.api = RuntimeApi(self)

    async def invoke(self, event: object, timeout_s: float | None = None) -> Call:
        """Hand an event to the function. Start the function if it does not run."""
        call = Call(json.dumps(event).encode(), timeout_s or self._timeout_s)
        if self.process is None or self.process.returncode is not None:
            await self.start()
        self.api.put(call)
        return call

    async def start(self) -> None:
        """Start the process."""
        variables = {**self._variables, "AWS_LAMBDA_RUNTIME_API": self.api.address}
        with self._log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(*self._command, env=variables, stderr=log, stdout=log)
        self.starts += 1
        self.frozen = False
        self._watching = asyncio.create_task(self._watch(self.process))

    async def exited(self) -> int:
        """Wait until the process has exited. Return its exit code."""
        assert self.process
        async with asyncio.timeout(60):
            return await self.process.wait()

    async def wait_frozen(self) -> None:
        """Wait until the process has requested its next invocation and has been frozen."""
        async with asyncio.timeout(60):
            while not self.frozen:
                await asyncio.sleep(0.01)

    def log(self) -> str:
        """Return the log of the function."""
        return self._log.read_text() if self._log.exists() else ""

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)
        self.frozen = True

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)
        self.frozen = False

    def begin(self, call: Call) -> None:
        asyncio.get_running_loop().call_later(call.timeout_s + self.grace_s, self._expire, call)

    def _expire(self, call: Call) -> None:
        if not call.outcome:
            call.end("timed out")
            self.api.current = None
            self._signal(signal.SIGKILL)

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        await process.wait()
        self.api.abandon()

    def _signal(self, number: signal.Signals) -> None:
        if self.process and self.process.returncode is None:
            with suppress(ProcessLookupError):
                self.process.send_signal(number)

    async def close(self) -> None:
        """Kill the process. Raise if it has violated the protocol."""
        self._signal(signal.SIGKILL)
        if self._watching:
            await self._watching
        await self.api.stop()
        assert not self.api.violations, f"{self.api.violations}\n{self.log()}"


@asynccontextmanager
async def environment(
    command: Sequence[str], variables: Mapping[str, str], log: Path, timeout_s: float = 60
) -> AsyncIterator[Environment]:
    """Yield an environment whose function is started by its first invocation."""
    made = Environment(command, variables, log, timeout_s)
    await made.api.start()
    try:
        yield made
    finally:
        await made.close()
