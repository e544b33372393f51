"""Commands that have to wait for a free request go together in the next one: auto-pipelining."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeAlias

from infra.contract.errors import StoreRejected, StoreUnavailable
from infra.contract.redis import Argument, Reply

Command: TypeAlias = tuple[Argument, ...]

BATCH = 32
"""So many commands in one request: a slow one among them holds up no more than these."""
LARGE = frozenset({"XRANGE", "HSCAN"})
"""Commands whose answer may take up a request's answer, which has a bound: one in a request."""
SETTLE_S = 0.5
"""How long is waited for the end of a request that was given up: some turns of the loop, unless something hangs."""


class _Question:
    """A command, how many wait for its answer, and the task that has taken it, if one has."""

    def __init__(self, command: Command, answer: "asyncio.Future[Reply]") -> None:
        self.command = command
        self.answer = answer
        self.asking = 0
        self.exchange: asyncio.Task[None] | None = None


class AutoPipeline:
    """Sends commands that may be repeated, over no more than so many requests at once.

    While a request is free a command goes by itself, at once. Those that have to wait go together, and those that are
    the same go once: many who open one log at the same moment cost little more than one. An answer is never older
    than its question, since who comes while a command is under way waits for the next.

    What nobody waits for any more is given up, and has ended when the last one leaves: a process that may be frozen
    next would keep the request open.
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
        self._waiting: dict[Command, _Question] = {}
        self._exchanges: dict[asyncio.Task[None], Sequence[_Question]] = {}

    async def ask(self, command: Command) -> Reply:
        """Run one command. Raises StoreUnavailable, soon after the timeout at the latest, and StoreRejected."""
        question = self._waiting.get(command) or self._begin(command)
        question.asking += 1
        try:
            async with within(self._timeout_s):
                return await asyncio.shield(question.answer)
        finally:
            question.asking -= 1
            await self._leave(question)

    async def close(self) -> None:
        """Give up what is under way, and what waits."""
        waiting = list(self._waiting.values())
        self._waiting.clear()
        for task in self._exchanges:
            task.cancel()
        await asyncio.gather(*self._exchanges, return_exceptions=True)
        _settle(waiting, StoreUnavailable("Redis was not waited for"))

    def _begin(self, command: Command) -> _Question:
        loop = asyncio.get_running_loop()
        question = self._waiting[command] = _Question(command, loop.create_future())
        task = loop.create_task(self._exchange())
        self._exchanges[task] = ()
        task.add_done_callback(self._exchanges.pop)
        return question

    async def _leave(self, question: _Question) -> None:
        """Give up the exchange that has taken it if nobody waits for any of its answers."""
        task = question.exchange
        if task and not task.done() and not any(each.asking for each in self._exchanges[task]):
            task.cancel()
            await asyncio.wait({task}, timeout=SETTLE_S)

    async def _exchange(self) -> None:
        """Send what waits as soon as a request is free. There is a task for each command: none is left waiting."""
        async with self._free:
            asked = self._take()
            if task := asyncio.current_task():
                self._exchanges[task] = asked
            for each in asked:
                each.exchange = task
            try:
                if asked:
                    await self._answer(asked)
            except Exception as exc:  # noqa: BLE001
                _settle(asked, exc)
            finally:
                _settle(asked, StoreUnavailable("Redis was not waited for"))

    async def _answer(self, asked: Sequence[_Question]) -> None:
        """Send commands together; if they are refused as a whole, which does not say for whose sake, one by one."""
        try:
            replies = await self._send([each.command for each in asked])
        except StoreRejected:
            if len(asked) == 1:
                raise
            for each in asked:
                try:
                    await self._answer([each])
                except StoreRejected as exc:
                    _settle([each], exc)
        else:
            for each, reply in zip(asked, replies, strict=True):
                each.answer.set_result(reply)

    def _take(self) -> list[_Question]:
        """The oldest commands that wait and that somebody still waits for; one alone if another can go as well."""
        room, large = BATCH if self._free.locked() else 1, 0
        asked: list[_Question] = []
        while self._waiting and len(asked) < room:
            command = next(iter(self._waiting))
            large += command[0] in LARGE
            if large > 1:
                break
            question = self._waiting.pop(command)
            if question.asking:
                asked.append(question)
        return asked


@asynccontextmanager
async def within(timeout_s: float) -> AsyncIterator[None]:
    """Raise StoreUnavailable if what is done inside takes longer."""
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError:
        raise StoreUnavailable(f"no answer from Redis within {timeout_s} s") from None


def _settle(asked: Sequence[_Question], exc: Exception) -> None:
    """Tell those that have no answer yet."""
    for each in asked:
        if not each.answer.done():
            each.answer.set_exception(exc)
            each.answer.exception()  # whoever asked may have gone: that is no error to report
