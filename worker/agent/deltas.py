"""Log of a reply under way: joins the small pieces in which endpoints send it."""

import asyncio
import time
from itertools import groupby

from infra.contract.events import ModelDelta, ModelRetry
from infra.contract.llm import Delta, RetryNotice
from worker.run.emitter import LogEmitter, now_ms

MAX_PENDING_CHARS = 4096


class DeltaLog:
    """Receives the progress of one exchange and logs it: the first piece immediately, others joined for `window_s`."""

    def __init__(self, emitter: LogEmitter, n: int, window_s: float, step: int | None) -> None:
        self._emitter = emitter
        self._n = n
        self._window_s = window_s
        self._step = step
        self._pieces: list[Delta] = []
        self._chars = 0
        self._logged_at = 0.0
        self._timer: asyncio.Task[None] | None = None

    async def __call__(self, progress: Delta | RetryNotice) -> None:
        """Take the next piece; a failed try makes those before it void."""
        if isinstance(progress, RetryNotice):
            self._pieces, self._chars = [], 0
            await self._retry(progress)
            return
        self._pieces.append(progress)
        self._chars += len(progress.text)
        if time.monotonic() - self._logged_at >= self._window_s or self._chars >= MAX_PENDING_CHARS:
            await self._log()
        elif self._timer is None or self._timer.done():
            # The endpoint may send nothing more for a while.
            self._timer = asyncio.create_task(self._log_later(), name=f"deltas {self._n}")

    async def end(self) -> None:
        """Log the reasoning that is not logged yet, which the whole reply does not repeat, unlike the text."""
        self._pieces = [piece for piece in self._pieces if piece.kind == "reasoning"]
        if self._pieces:
            await self._log()

    async def close(self) -> None:
        """Stop; pieces that are not logged yet are in the whole reply, or void."""
        if self._timer:
            self._timer.cancel()
            await asyncio.gather(self._timer, return_exceptions=True)

    async def _log_later(self) -> None:
        while self._pieces:
            await asyncio.sleep(self._logged_at + self._window_s - time.monotonic())
            await self._log()

    async def _log(self) -> None:
        pieces, self._pieces, self._chars = self._pieces, [], 0
        self._logged_at = time.monotonic()
        for kind, group in groupby(pieces, key=lambda piece: piece.kind):
            text = "".join(piece.text for piece in group)
            await self._emitter.emit(ModelDelta(n=self._n, kind=kind, text=text), step=self._step)

    async def _retry(self, retry: RetryNotice) -> None:
        event = ModelRetry(
            n=self._n,
            model=retry.model,
            reason=retry.reason,
            next_model=retry.next_model,
            until_ms=now_ms() + int(retry.after_s * 1000),
        )
        await self._emitter.emit(event, step=self._step)
