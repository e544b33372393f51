"""The wait of one worker for a wake token."""

import asyncio
import logging

from infra.contract.errors import StoreRejected, StoreUnavailable
from infra.logging import log
from worker.queue.ports import WakeFeed


class TokenWait:
    """Wait for a token of the list `pending`, at most one at a time.

    It continues while its worker does other things: a pop that is cancelled could lose a token that it has just taken.
    A wait of more than `block_s`, or `retry_s` after Redis could not be reached, ends as if without a token.
    """

    def __init__(self, wakes: WakeFeed, pending: str, *, block_s: float, retry_s: float) -> None:
        self._wakes = wakes
        self._pending = pending
        self._block_s = block_s
        self._retry_s = retry_s
        self.task: asyncio.Task[bool] | None = None

    @property
    def is_done(self) -> bool:
        """Whether the wait has ended, and `collect` has not been called since."""
        return self.task is not None and self.task.done()

    def begin(self) -> asyncio.Task[bool]:
        """Return the wait that is under way, or has ended; without one, begin it."""
        if self.task is None:
            self.task = asyncio.create_task(self._take())
        return self.task

    def collect(self) -> bool:
        """Return whether a token was taken since the last call, and forget it."""
        if self.task is None or not self.task.done():
            return False
        wait, self.task = self.task, None
        return not wait.cancelled() and wait.result()

    async def stop(self) -> bool:
        """Stop waiting; return whether there was a wait, which may have taken a token."""
        if self.task is None:
            return False
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        return True

    async def _take(self) -> bool:
        try:
            return await self._wakes.wait_token(self._pending, self._block_s)
        except (StoreUnavailable, StoreRejected) as exc:
            log("queue.unreachable", level=logging.WARNING, reason=str(exc))
            # A claim follows the end of this wait: the pause keeps the two from spinning.
            await asyncio.sleep(self._retry_s)
            return False
