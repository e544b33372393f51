"""Deadline of an exchange that starts anew whenever bytes are passed on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class IdleDeadline:
    """Deadline `idle_s` seconds after the last call of `touch`."""

    def __init__(self, deadline: asyncio.Timeout, idle_s: float) -> None:
        self._deadline = deadline
        self._loop = asyncio.get_running_loop()
        self.idle_s = idle_s

    def touch(self) -> None:
        """Put off the deadline."""
        if not self._deadline.expired():
            self._deadline.reschedule(self._loop.time() + self.idle_s)


@asynccontextmanager
async def idle_deadline(idle_s: float) -> AsyncIterator[IdleDeadline]:
    """Limit the time for which nothing happens in the context. Raises TimeoutError."""
    async with asyncio.timeout(idle_s) as deadline:
        yield IdleDeadline(deadline, idle_s)
