"""Auto-pipelining: commands that have to wait for a free request share the next one."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeAlias

from infra.contract.errors import StoreRejected, StoreUnavailable
from infra.contract.redis import Argument, Reply

Command: TypeAlias = tuple[Argument, ...]

MAX_BATCH = 32
"""Commands in one request. A slow command delays at most this many others."""
LARGE_REPLY_COMMANDS = frozenset({"XRANGE", "HSCAN"})
"""Commands whose reply may fill a response up to its size limit: at most one of them in a request."""
ABORT_TIMEOUT_S = 0.5
"""Time for a cancelled request to end: a few turns of the event loop, unless something hangs."""


class _PendingCommand:
    """A command without a reply yet. `callers`: how many wait for it. `task`: sends it, once it has been taken."""

    def __init__(self, command: Command, reply: "asyncio.Future[Reply]") -> None:
        self.command = command
        self.reply = reply
        self.callers = 0
        self.task: asyncio.Task[None] | None = None


class AutoPipeline:
    """Sends commands that are safe to repeat, in as many concurrent requests as `request_slots` allows.

    While a request is free, each command has its own. Commands that have to wait share a request, and equal ones are
    sent once: many clients that open one log at the same moment cost little more than one client. A reply is never
    older than its call, because a call that comes while an equal command is under way waits for the next request.

    A request whose callers have all left is cancelled, and has ended when the last of them returns: on Lambda, the
    process may be frozen next, and a frozen process would keep the connection open.
    """

    def __init__(
        self,
        request_slots: asyncio.Semaphore,
        send: Callable[[Sequence[Command]], Awaitable[list[Reply]]],
        timeout_s: float,
    ) -> None:
        self._request_slots = request_slots
        self._send = send
        self._timeout_s = timeout_s
        self._queue: dict[Command, _PendingCommand] = {}
        self._tasks: dict[asyncio.Task[None], Sequence[_PendingCommand]] = {}

    async def submit(self, command: Command) -> Reply:
        """Run one command. Raises StoreUnavailable, soon after the timeout at the latest, and StoreRejected."""
        pending = self._queue.get(command) or self._enqueue(command)
        pending.callers += 1
        try:
            async with deadline(self._timeout_s):
                # Shielded, because other callers may wait for the same reply.
                return await asyncio.shield(pending.reply)
        finally:
            pending.callers -= 1
            await self._abort_if_unused(pending)

    async def close(self) -> None:
        """Cancel the requests under way; commands without a reply fail with StoreUnavailable."""
        queued = list(self._queue.values())
        self._queue.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        _fail(queued, StoreUnavailable("the request to Redis was cancelled"))

    def _enqueue(self, command: Command) -> _PendingCommand:
        loop = asyncio.get_running_loop()
        pending = self._queue[command] = _PendingCommand(command, loop.create_future())
        # One task for each command. A task takes several if it can, and the tasks that are left find the queue empty.
        # So no command stays in the queue without a task, even if other tasks are cancelled.
        task = loop.create_task(self._send_batch())
        self._tasks[task] = ()
        task.add_done_callback(self._tasks.pop)
        return pending

    async def _abort_if_unused(self, pending: _PendingCommand) -> None:
        """Cancel the request that carries the command, if no caller waits for any command in it."""
        task = pending.task
        if task and not task.done() and not any(each.callers for each in self._tasks[task]):
            task.cancel()
            await asyncio.wait({task}, timeout=ABORT_TIMEOUT_S)

    async def _send_batch(self) -> None:
        """Send queued commands as soon as a request is free."""
        async with self._request_slots:
            batch = self._take_batch()
            if task := asyncio.current_task():
                self._tasks[task] = batch
            for each in batch:
                each.task = task
            try:
                if batch:
                    await self._execute(batch)
            except Exception as exc:  # noqa: BLE001 whatever it is: without a reply, the callers wait for their timeout
                _fail(batch, exc)
            finally:
                _fail(batch, StoreUnavailable("the request to Redis was cancelled"))

    async def _execute(self, batch: Sequence[_PendingCommand]) -> None:
        """Send commands together, and one by one if they are rejected as a whole."""
        try:
            replies = await self._send([each.command for each in batch])
        except StoreRejected:
            if len(batch) == 1:
                raise
            # The error does not show which command was rejected. All of them are safe to repeat.
            for each in batch:
                try:
                    await self._execute([each])
                except StoreRejected as exc:
                    _fail([each], exc)
        else:
            for each, reply in zip(batch, replies, strict=True):
                each.reply.set_result(reply)

    def _take_batch(self) -> list[_PendingCommand]:
        """Remove the oldest commands from the queue and return those that a caller still waits for."""
        # While another request is free, one command at a time: each of them is then sent without delay.
        size, large = MAX_BATCH if self._request_slots.locked() else 1, 0
        batch: list[_PendingCommand] = []
        while self._queue and len(batch) < size:
            command = next(iter(self._queue))
            large += command[0] in LARGE_REPLY_COMMANDS
            if large > 1:
                break
            pending = self._queue.pop(command)
            if pending.callers:
                batch.append(pending)
        return batch


@asynccontextmanager
async def deadline(timeout_s: float) -> AsyncIterator[None]:
    """Raise StoreUnavailable if the body takes longer."""
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError:
        raise StoreUnavailable(f"no reply from Redis within {timeout_s} s") from None


def _fail(batch: Sequence[_PendingCommand], exc: Exception) -> None:
    """Raise the error for the callers of those commands that have no reply yet."""
    for each in batch:
        if not each.reply.done():
            each.reply.set_exception(exc)
            each.reply.exception()  # mark it as retrieved: asyncio would log it if all callers have left
