"""Auto-pipelining: commands that are submitted at the same time, or that wait for a free request, share one."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Sequence
from contextlib import asynccontextmanager
from typing import TypeAlias

from infra.contract.errors import ContractError, RepliesTooLong, StoreUnavailable
from infra.contract.redis import Argument, Reply

Command: TypeAlias = tuple[Argument, ...]

MAX_BATCH = 32
"""Commands in one request. A slow command delays at most this many others."""
MAX_BATCH_CHARS = 256 * 1024
"""Characters of the arguments in one request of several commands. Upstash accepts 1 MB on its smallest plan."""
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

    Commands that are submitted in one turn of the event loop share a request without waiting for each other. While no
    request is free, more of them gather. A reply is never older than its call, because a call that comes while an equal
    command is under way waits for the next request.

    `send` returns for each command its reply, or the error with which Redis replied. A request whose callers have all
    left is cancelled, and has ended when the last of them returns: on Lambda, the process may be frozen next, and a
    frozen process would keep the connection open.
    """

    def __init__(
        self,
        request_slots: asyncio.Semaphore,
        send: "Callable[[Sequence[Command]], Awaitable[Sequence[Reply | ContractError]]]",
    ) -> None:
        self._request_slots = request_slots
        self._send = send
        self._queue: dict[Hashable, _PendingCommand] = {}
        self._tasks: dict[asyncio.Task[None], Sequence[_PendingCommand]] = {}

    async def read(self, command: Command) -> Reply:
        """Execute a command; equal ones that wait together are sent once. Has no deadline, as `write`: see `deadline`.

        Raises StoreUnavailable and StoreRejected.
        """
        # Many clients that open one log at the same moment cost little more than one client.
        return await self._reply(command, command)

    async def write(self, command: Command) -> Reply:
        """Execute a command once for each call. Raises StoreUnavailable and StoreRejected."""
        return await self._reply(object(), command)

    async def _reply(self, key: Hashable, command: Command) -> Reply:
        pending = self._queue.get(key) or self._enqueue(key, command)
        pending.callers += 1
        try:
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

    def _enqueue(self, key: Hashable, command: Command) -> _PendingCommand:
        loop = asyncio.get_running_loop()
        pending = self._queue[key] = _PendingCommand(command, loop.create_future())
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
        """Send commands together, and those again alone whose replies were too long beside the others."""
        try:
            replies = await self._send([each.command for each in batch])
        except RepliesTooLong as exc:
            replies = [exc] * len(batch)
        alone: list[_PendingCommand] = []
        for each, reply in zip(batch, replies, strict=True):
            if isinstance(reply, RepliesTooLong) and len(batch) > 1:
                alone.append(each)
            elif isinstance(reply, ContractError):
                _fail([each], reply)
            else:
                each.reply.set_result(reply)
        for each in alone:
            if each.callers:
                await self._execute([each])

    def _take_batch(self) -> list[_PendingCommand]:
        """Remove the oldest commands from the queue and return those that a caller still waits for."""
        large, chars = 0, 0
        batch: list[_PendingCommand] = []
        while self._queue and len(batch) < MAX_BATCH:
            key = next(iter(self._queue))
            pending = self._queue[key]
            large += pending.command[0] in LARGE_REPLY_COMMANDS
            chars += sum(len(str(argument)) for argument in pending.command)
            if batch and (large > 1 or chars > MAX_BATCH_CHARS):
                break
            del self._queue[key]
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
