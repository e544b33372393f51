"""Exchange with a program that answers requests, and the reason of its end.

A request and a reply are each a length of 4 bytes, big-endian, and that number of bytes. Uses the standard library
alone, because the runner in a pod has nothing else.
"""

import asyncio

from infra.contract.errors import SessionLost
from infra.local_executor.guard import KILLED

LENGTH_BYTES = 4
MAX_REASON_CHARS = 300
ERROR_BYTES = 4096
"""Last bytes of stderr that are kept, for the reason of an end."""


def framed(request: bytes) -> bytes:
    """Return a request as the program reads it."""
    return len(request).to_bytes(LENGTH_BYTES, "big") + request


async def read_reply(replies: asyncio.StreamReader, max_bytes: int) -> bytes:
    """Read one reply. Raises SessionLost if it is too long, IncompleteReadError if the program ends."""
    size = int.from_bytes(await replies.readexactly(LENGTH_BYTES), "big")
    if size > max_bytes:
        raise SessionLost(f"its answer has {size} bytes; allowed are {max_bytes}")
    return await replies.readexactly(size)


class ErrorTail:
    """Last part of what a program writes to stderr."""

    def __init__(self) -> None:
        self._tail = bytearray()

    @property
    def text(self) -> str:
        """Text without white space around it."""
        return self._tail.decode(errors="replace").strip()

    async def read(self, stderr: asyncio.StreamReader) -> None:
        """Read until the end."""
        while data := await stderr.read(ERROR_BYTES):
            self._tail += data
            del self._tail[:-ERROR_BYTES]


def reason_of_end(exit_code: int | None, errors: str, expired_s: float | None = None) -> str:
    """Return why a program has ended. `errors`: end of its stderr; `expired_s`: its time, if that was up."""
    if expired_s is not None:
        return f"its time of {expired_s:g} s was up"
    last = errors.rpartition("\n")[2]
    if last.startswith("killed: "):
        return last.removeprefix("killed: ")
    end = "it was killed" if exit_code == KILLED else f"it ended with exit code {exit_code}"
    return f"{end}: {last[:MAX_REASON_CHARS]}" if last else end
