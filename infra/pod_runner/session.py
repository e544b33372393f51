"""Session of a pod: a program that answers the requests of one worker, each once, until the worker is done or lost.

Requests have numbers. A request that comes again, because its connection was cut, is not passed to the program: it gets
the reply of the first time, which is kept until the next request.
"""

import asyncio
import time
from pathlib import Path

from infra.contract.errors import SessionLost
from infra.local_executor.exchange import ErrorTail, framed, read_reply, reason_of_end
from infra.pod_runner import program
from infra.pod_runner.relay import ProxyRelay
from infra.pod_runner.task import SessionTask, UnexpectedRequest

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108
END_S = 1.0
"""Time for a program that has closed its stdout to end."""


class PodSession:
    """Session with a program that was started. `lost` is the reason for its end, empty while it runs."""

    def __init__(
        self,
        task: SessionTask,
        running: program.Program,
        relay: ProxyRelay | None,
        requests: asyncio.WriteTransport,
        outputs: tuple[asyncio.StreamReader, asyncio.StreamReader],
    ) -> None:
        self.lost = ""
        self.program_dead = asyncio.Event()
        self._task = task
        self._program = running
        self._relay = relay
        self._requests = requests
        self._replies, stderr = outputs
        self._errors = ErrorTail()
        self._is_cancelled = asyncio.Event()
        self._heard_s = time.monotonic()
        self._number = 0
        self._exchange: asyncio.Future[bytes] | None = None
        self._life = asyncio.ensure_future(self._live(stderr))

    @classmethod
    async def start(cls, task: SessionTask, uid: int) -> "PodSession":
        """Start the program, under another `uid` if that is not 0. Raises ExecutorUnavailable, OSError."""
        relay = ProxyRelay(task.proxy_url) if task.proxy_url else None
        proxy_url = await relay.listen() if relay else ""
        running = program.start(task.command, program.TEMPORARY, uid, proxy_url, with_input=True)
        requests = await running.writer()
        replies, errors = [await program.reader_of(output) for output in running.outputs]
        return cls(task, running, relay, requests, (replies, errors))

    async def wait(self) -> str:
        """Wait until the session is cancelled, or its worker is lost; the program is dead then. Return the reason.

        A program that has ended is no end of the session: the worker asks for the reason.
        """
        reason = "the session was told to end"
        while not self._is_cancelled.is_set():
            left_s = self._heard_s + self._task.silence_s - time.monotonic()
            if left_s <= 0:
                reason = f"the worker was silent for {self._task.silence_s:g} s"
                self.cancel()
            try:
                async with asyncio.timeout(max(0, left_s)):
                    await self._is_cancelled.wait()
            except TimeoutError:
                continue
        await self.program_dead.wait()
        return reason

    def hear(self) -> str:
        """Note that the worker is there; return the reason for which the session is lost, or an empty text."""
        self._heard_s = time.monotonic()
        return self.lost

    async def ask(self, number: int, request: bytes) -> bytes:
        """Return the reply to a request. Numbers count from 1. Raises SessionLost, UnexpectedRequest."""
        if number == self._number + 1 and (self._exchange is None or self._exchange.done()):
            self._number = number
            self._exchange = asyncio.ensure_future(self._exchanged(request))
            # Mark its error as retrieved: all connections that wait for it may have been cut.
            self._exchange.add_done_callback(lambda done: done.cancelled() or done.exception())
        if number != self._number or self._exchange is None:
            raise UnexpectedRequest(f"the next request is number {self._number + 1}, after the one before is answered")
        return await asyncio.shield(self._exchange)

    def cancel(self) -> None:
        """Kill the program."""
        self._is_cancelled.set()
        self._program.stop()

    async def _live(self, stderr: asyncio.StreamReader) -> None:
        """Wait for the end of the program, and note its reason."""
        command = self._task.command
        files = [
            program.MemoryFolderLimit(folder, program.TEMPORARY_FILES).exceeded
            for folder in (program.TEMPORARY, SHARED_MEMORY)
        ]
        reading = asyncio.ensure_future(self._errors.read(stderr))
        ended = await asyncio.to_thread(self._program.wait, command.timeout_s, command.limits.memory_bytes, files)
        self.program_dead.set()
        if self._relay:
            self._relay.close()
        await reading
        self.lost = reason_of_end(ended.exit_code, self._errors.text, command.timeout_s if ended.timed_out else None)

    async def _exchanged(self, request: bytes) -> bytes:
        try:
            if not self.lost:
                self._requests.write(framed(request))
                return await read_reply(self._replies, self._task.max_reply_bytes)
        except asyncio.IncompleteReadError:
            await asyncio.wait({self._life}, timeout=END_S)
        raise SessionLost(self.lost or "it has closed its output")
