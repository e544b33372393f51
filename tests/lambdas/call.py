"""One invocation of a function, as Lambda sees it."""

import asyncio
import base64
import json
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

DELIMITER = bytes(8)


class Call:
    """What was asked, and what has come back so far.

    `outcome` is empty until it is over: answered, failed (the function said so), broken (its answer ended halfway),
    too large, timed out (the process was killed), or exited (it ended by itself).
    """

    def __init__(self, event: bytes, timeout_s: float) -> None:
        self.id, self.marker = str(uuid.uuid4()), str(uuid.uuid4())
        self.event = event
        self.timeout_s = timeout_s
        self.deadline_ms = 0
        self.streamed = False
        self.body = bytearray()
        self.pieces = 0
        self.error: dict[str, Any] | None = None
        self.outcome = ""
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """Wake those who wait for more."""
        self._changed.set()
        self._changed = asyncio.Event()

    def end(self, outcome: str) -> None:
        """It is over; the first to say so is right."""
        self.outcome = self.outcome or outcome
        self.changed()

    def end_with_trailers(self, trailers: dict[str, str]) -> None:
        """A streamed answer has come to its end, which may be an error."""
        if trailers:
            self.error = json.loads(base64.b64decode(trailers["lambda-runtime-function-error-body"], validate=True))
            assert self.error
            assert trailers["lambda-runtime-function-error-type"] == self.error["errorType"]
        self.end("failed" if trailers else "answered")

    async def until(self, predicate: Callable[[], object], description: str) -> None:
        """Wait until something holds."""
        async with asyncio.timeout(60):
            while not predicate():
                assert not self.outcome, f"the invocation is over ({self.outcome}): {description}"
                await self._changed.wait()

    async def begun(self) -> bool:
        """Wait until there is an answer, or none; whether it streams."""
        while not self.streamed and not self.outcome:
            await self._changed.wait()
        return self.streamed

    async def ended(self) -> str:
        """Wait for the outcome."""
        async with asyncio.timeout(60):
            while not self.outcome:
                await self._changed.wait()
        return self.outcome

    async def head(self) -> dict[str, Any]:
        """Status, headers and cookies, as soon as they are there; of an answer that is no stream, all of it."""
        while not self.outcome and not (self.streamed and DELIMITER in self.body):
            await self._changed.wait()
        if not self.streamed:
            assert self.outcome == "answered", self.outcome
            return dict(json.loads(self.body))
        head, delimiter, _ = self.body.partition(DELIMITER)
        assert delimiter, f"the answer has no head: {self.outcome}"
        return dict(json.loads(head))

    async def content(self) -> AsyncIterator[bytes]:
        """The body of a streamed answer as it comes."""
        await self.head()
        taken = self.body.index(DELIMITER) + len(DELIMITER)
        while True:
            while taken < len(self.body):
                part = bytes(self.body[taken:])
                taken += len(part)
                yield part
            if self.outcome:
                return
            await self._changed.wait()

    async def whole(self) -> tuple[dict[str, Any], bytes]:
        """The head and all of the body of a streamed answer, however it ended."""
        return await self.head(), b"".join([part async for part in self.content()])
