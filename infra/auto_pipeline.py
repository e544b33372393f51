"""Commands that have to wait for a free request go together in the next one: auto-pipelining."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeAlias

from infra.contract.errors import StoreRejected, StoreUnavailable
from infra.contract.ports import Argument, Reply

Command: TypeAlias = tuple[Argument, ...]
_Asked: TypeAlias = "tuple[Command, asyncio.Future[Reply]]"

BATCH = 32
"""So many commands in one request: a slow one among them holds up no more than these."""
LARGE = frozenset({"XRANGE", "HSCAN"})
"""Commands whose answer may take up a request's answer, which has a bound: one in a request."""


class AutoPipeline:
    """Sends commands that may be repeated, over no more than so many requests at once.

    While a request is free a command goes by itself, at once. Those that have to wait go together, and those that are
    the same go once: many who open one log at the same moment cost little more than one. An answer is never older
    than its question, since who comes while a command is under way waits for the next.
    """

    def __init__(
        self,
        free: asyncio.Semaphore,
        send: Callable[[Sequence[Command]], Awaitable[list[Reply]]],
        timeout_s: float,
    ) -> None:
        self._free = free
        self._send = send
        self._timeout_s = timeout_s
        self._waiting: dict[Command, tuple[asyncio.Future[Reply], float]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, command: Command) -> Reply:
        """Run one command. Raises StoreUnavailable, after the timeout at the latest, and StoreRejected."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._timeout_s
        if command in self._waiting:
            answer, _ = self._waiting[command]
            self._waiting[command] = answer, until
        else:
            answer = loop.create_future()
            self._waiting[command] = answer, until
            task = loop.create_task(self._exchange())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        async with within(self._timeout_s):
            return await asyncio.shield(answer)

    async def close(self) -> None:
        """Give up what is under way, and what waits."""
        waiting = [(command, answer) for command, (answer, _) in self._waiting.items()]
        self._waiting.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        _settle(waiting, StoreUnavailable("Redis was not waited for"))

    async def _exchange(self) -> None:
        """Send what waits as soon as a request is free. There is a task for each command: none is left waiting."""
        async with self._free:
            asked = self._take()
            try:
                if asked:
                    await self._answer(asked)
            except Exception as exc:  # noqa: BLE001
                _settle(asked, exc)
            finally:
                _settle(asked, StoreUnavailable("Redis was not waited for"))

    async def _answer(self, asked: Sequence[_Asked]) -> None:
        """Send commands together; if they are refused as a whole, which does not say for whose sake, one by one."""
        try:
            replies = await self._send([command for command, _ in asked])
        except StoreRejected:
            if len(asked) == 1:
                raise
            for each in asked:
                try:
                    await self._answer([each])
                except StoreRejected as exc:
                    _settle([each], exc)
        else:
            for (_, answer), reply in zip(asked, replies, strict=True):
                answer.set_result(reply)

    def _take(self) -> list[_Asked]:
        """The oldest commands that wait and that somebody still waits for; one alone if another can go as well."""
        now = asyncio.get_running_loop().time()
        room, large = BATCH if self._free.locked() else 1, 0
        asked: list[_Asked] = []
        while self._waiting and len(asked) < room:
            command = next(iter(self._waiting))
            large += command[0] in LARGE
            if large > 1:
                break
            answer, until = self._waiting.pop(command)
            if now < until:
                asked.append((command, answer))
            else:
                _settle([(command, answer)], _late(self._timeout_s))
        return asked


@asynccontextmanager
async def within(timeout_s: float) -> AsyncIterator[None]:
    """Raise StoreUnavailable if what is done inside takes longer."""
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError:
        raise _late(timeout_s) from None


def _late(timeout_s: float) -> StoreUnavailable:
    return StoreUnavailable(f"no answer from Redis within {timeout_s} s")


def _settle(asked: Sequence[_Asked], exc: Exception) -> None:
    """Tell those that have no answer yet."""
    for _, answer in asked:
        if not answer.done():
            answer.set_exception(exc)
            answer.exception()  # whoever asked may have gone: that is no error to report
