"""What a program prints: kept in a capped file, and handed on line by line while it runs."""

import asyncio
import codecs
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

PART_CHARS = 4096
"""A longer line is handed on in parts of so many characters: at most 16 KB of UTF-8."""
_CHUNK_BYTES = 64 * 1024

OnText: TypeAlias = Callable[[str], Awaitable[None]]


class Lines:
    """Cuts a stream of bytes into lines of text; what is not UTF-8 is replaced."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def feed(self, data: bytes, *, final: bool = False) -> list[str]:
        """The lines that are complete now, without their ends; with `final` also the last one that has no end."""
        self._rest += self._decoder.decode(data, final)
        *lines, self._rest = self._rest.split("\n")
        while len(self._rest) > PART_CHARS:
            lines.append(self._rest[:PART_CHARS])
            self._rest = self._rest[PART_CHARS:]
        if final and self._rest:
            lines.append(self._rest)
            self._rest = ""
        return [part for line in lines for part in _parts(line.removesuffix("\r"))]


class Capture:
    """Reads one stream of a program to its end: a file with the first `limit` bytes, a count of all, and lines."""

    def __init__(self, path: Path, limit: int) -> None:
        self.path = path
        self.total_bytes = 0
        self._limit = limit

    async def pump(self, source: asyncio.StreamReader, on_line: OnText) -> None:
        """Read until the stream ends, awaiting `on_line` for each line, so that a slow log slows the program."""
        lines = Lines()
        with self.path.open("wb") as file:
            while data := await source.read(_CHUNK_BYTES):
                file.write(data[: max(0, self._limit - self.total_bytes)])
                self.total_bytes += len(data)
                for line in lines.feed(data):
                    await on_line(line)
        for line in lines.feed(b"", final=True):
            await on_line(line)


def _parts(line: str) -> list[str]:
    return [line[at : at + PART_CHARS] for at in range(0, len(line), PART_CHARS)] or [""]
