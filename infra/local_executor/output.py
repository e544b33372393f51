"""What a program prints: kept in a capped file, and handed on line by line while it runs."""

import asyncio
import codecs
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

PART_CHARS = 4096
"""A longer line is handed on in parts of so many characters: at most 16 KB of UTF-8."""
_CHUNK_BYTES = 64 * 1024

Part: TypeAlias = tuple[str, bool]
"""A line, or a part of one, and whether the line goes on."""
OnPart: TypeAlias = Callable[[str, bool], Awaitable[None]]


class Lines:
    """Cuts a stream of bytes into lines of text; what is not UTF-8 is replaced."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def feed(self, data: bytes, *, final: bool = False) -> list[Part]:
        """The lines that are complete now, without their ends; with `final` also the last one that has no end."""
        self._rest += self._decoder.decode(data, final)
        *lines, self._rest = self._rest.split("\n")
        if final and self._rest:
            lines.append(self._rest)
            self._rest = ""
        parts = [part for line in lines for part in _parts(line.removesuffix("\r"))]
        while len(self._rest) > PART_CHARS:
            parts.append((self._rest[:PART_CHARS], True))
            self._rest = self._rest[PART_CHARS:]
        return parts


class Capture:
    """Reads one stream of a program to its end: a file with the first `limit` bytes, a count of all, and lines."""

    def __init__(self, path: Path, limit: int) -> None:
        self.path = path
        self.total_bytes = 0
        self._limit = limit

    async def pump(self, source: asyncio.StreamReader, on_part: OnPart) -> None:
        """Read until the stream ends, awaiting `on_part` for each line, so that a slow log slows the program."""
        lines = Lines()
        with self.path.open("wb") as file:
            while data := await source.read(_CHUNK_BYTES):
                file.write(data[: max(0, self._limit - self.total_bytes)])
                self.total_bytes += len(data)
                for part in lines.feed(data):
                    await on_part(*part)
        for part in lines.feed(b"", final=True):
            await on_part(*part)


def _parts(line: str) -> list[Part]:
    starts = range(0, max(1, len(line)), PART_CHARS)
    return [(line[at : at + PART_CHARS], at != starts[-1]) for at in starts]
