"""One invocation of a function, seen from Lambda."""

import asyncio
import base64
import json
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

DELIMITER = bytes(8)


class Call:
    """Event of an invocation, and the response as far as it has arrived.

    `outcome` is empty while the invocation runs, then one of: answered, failed (reported by the function), broken
    (the response ended halfway), too large, timed out (the process was killed), or exited (the process ended).
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
        """Wake the tasks that wait for a change."""
        self._changed.set()
        self._changed = asyncio.Event()

    def end(self, outcome: str) -> None:
        """Set the outcome, unless it is set already."""
        self.outcome = self.outcome or outcome
        self.changed()

    def end_with_trailers(self, trailers: dict[str, str]) -> None:
        """End a streamed response; the trailers may report an error."""
        if trailers:
            self.error = json.loads(base64.b64decode(trailers["lambda-runtime-function-error-body"], validate=True))
            assert self.error
            assert trailers["lambda-runtime-function-error-type"] == self.error["errorType"]
        self.end("failed" if trailers else "answered")

    async def until(self, predicate: Callable[[], object], description: str) -> None:
        """Wait until the predicate holds."""
        async with asyncio.timeout(60):
            while not predicate():
                assert not self.outcome, f"the invocation is over ({self.outcome}): {description}"
                await self._changed.wait()

    async def begun(self) -> bool:
        """Wait until a response has begun or the invocation has ended. Return whether the response streams."""
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
        """Wait for status, headers and cookies, and return them; without streaming, return all of it."""
        while not self.outcome and not (self.streamed and DELIMITER in self.body):
            await self._changed.wait()
        if not self.streamed:
            assert self.outcome == "answered", self.outcome
            return dict(json.loads(self.body))
        head, delimiter, _ = self.body.partition(DELIMITER)
        assert delimiter, f"the answer has no head: {self.outcome}"
        return dict(json.loads(head))

    async def content(self) -> AsyncIterator[bytes]:
        """Yield the body of a streamed response as it arrives."""
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

    async def complete(self) -> tuple[dict[str, Any], bytes]:
        """Return the head and the complete body of a streamed response, whatever its outcome."""
        return await self.head(), b"".join([part async for part in self.content()])
