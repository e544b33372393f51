"""Split a RESP2 byte stream into whole replies without decoding them, for `Upstash-Response-Format: resp2`."""

from __future__ import annotations

import hiredis

from infra.gateway.resp import RawReply

_LINE_TYPES = frozenset(b"+-:")


class RawReader:
    """Parser with the methods of `hiredis.Reader`. `gets` returns the bytes of one reply, False if it is incomplete."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._position = 0
        self._missing = 1  # elements still to come before the current reply is whole

    def feed(self, data: bytes, /) -> None:
        self._buffer += data

    def has_data(self) -> bool:
        return bool(self._buffer)

    def gets(self) -> RawReply | bool:
        while self._missing:
            if not self._skip_element():
                return False
        with memoryview(self._buffer) as buffer, buffer[: self._position] as view:
            reply = RawReply(view)
        del self._buffer[: self._position]
        self._position, self._missing = 0, 1
        return reply

    def _skip_element(self) -> bool:
        """Advance over one element (for an array: over its header). Return False if more bytes are needed."""
        end = self._buffer.find(b"\r\n", self._position)
        if end < 0:
            return False
        kind = self._buffer[self._position]
        after = end + 2
        elements = 0
        if kind not in _LINE_TYPES:
            try:
                length = int(self._buffer[self._position + 1 : end])
            except ValueError as exc:
                raise hiredis.ProtocolError("bad length in a reply") from exc
            # A length of -1 is a null array or a null string: nothing follows.
            if kind == ord("*"):
                elements = max(length, 0)
            elif kind == ord("$"):
                after += length + 2 if length >= 0 else 0
            else:
                raise hiredis.ProtocolError("unknown reply type")
        if after > len(self._buffer):
            return False
        self._position = after
        self._missing += elements - 1
        return True
