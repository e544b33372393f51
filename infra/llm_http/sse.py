"""Data of server-sent events, from a stream that is cut into any packets."""

import re
from collections.abc import Iterator

BOM = b"\xef\xbb\xbf"
_LINE_END = re.compile(rb"\r\n|\n|\r")


class EventTooLong(Exception):
    """One event exceeds the bound."""


class EventDecoder:
    """Decoder of one stream. An event counts once the empty line behind it has arrived, as the standard says."""

    def __init__(self, max_event_bytes: int) -> None:
        self._max = max_event_bytes
        self._rest = b""
        self._parts: list[bytes] = []
        self._size = 0
        self._data: list[bytes] = []
        self._begun = False

    def feed(self, packet: bytes) -> Iterator[bytes]:
        """Yield the data of each event that the packet completes. Raises EventTooLong."""
        self._size += len(packet)
        if self._size > self._max:
            raise EventTooLong
        if not any(end in packet for end in (b"\n", b"\r")) and not self._rest.endswith(b"\r"):
            self._parts.append(packet)  # joined once: a long line in small packets costs no quadratic time
            return
        text = b"".join((self._rest, *self._parts, packet))
        self._parts.clear()
        begin = 0
        for end in _LINE_END.finditer(text):
            if end[0] == b"\r" and end.end() == len(text):
                break  # perhaps the first half of CR LF
            yield from self._line(text[begin : end.start()], len(text) - end.end())
            begin = end.end()
        self._rest = text[begin:]

    def end(self) -> Iterator[bytes]:
        """Yield the last event if its empty line ends in a carriage return, which may have been half of a line end."""
        if self._rest.endswith(b"\r") and not self._parts:
            yield from self._line(self._rest[:-1], 0)

    def _line(self, line: bytes, left: int) -> Iterator[bytes]:
        if not self._begun:
            self._begun = True
            line = line.removeprefix(BOM)
        if not line:
            event, self._data, self._size = self._data, [], left
            if event:
                yield b"\n".join(event)
        elif line.startswith(b":"):
            if not self._data:
                self._size = left
        elif line == b"data":
            self._data.append(b"")
        elif line.startswith(b"data:"):
            self._data.append(line.removeprefix(b"data:").removeprefix(b" "))
