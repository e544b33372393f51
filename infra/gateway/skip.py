"""Skip replies of Redis that are too large to be kept."""

from __future__ import annotations

_LINE_TYPES = frozenset(b"+-:")
_MAX_RETAINED_BYTES = 32 * 1024 * 1024
_FORGOTTEN_BYTES = 1024 * 1024
_FORGOTTEN_ELEMENTS = 1000


class ReplySkipper:
    """Skips `replies` whole replies of a RESP2 stream. Memory does not depend on their size."""

    def __init__(self, replies: int) -> None:
        self._replies = replies
        self._missing = 1  # elements still to come before the current reply is whole
        self._to_skip = 0  # bytes still to come of the current string, its line end included
        self._in_line = False  # the rest of a line follows, as far as its line end
        self._partial = b""
        self.elements = 0
        """Number of elements skipped so far, which is the measure of the work."""

    def feed(self, data: bytes) -> bytes | None:
        """Skip `data`; return the bytes after the last reply, or None if more bytes are needed. Raises ValueError."""
        data = self._partial + data
        self._partial = b""
        position = 0
        while self._replies:
            if self._to_skip:
                step = min(self._to_skip, len(data) - position)
                position += step
                self._to_skip -= step
                if self._to_skip:
                    return None
                self._end_element()
                continue
            end = data.find(b"\r\n", position)
            if end < 0:
                self._keep_partial(data, position)
                return None
            self._read_line(data, position, end)
            position = end + 2
        return data[position:]

    def _keep_partial(self, data: bytes, position: int) -> None:
        # Of a status or an error only the last byte is kept, because a script may return one of any length.
        if self._in_line or (position < len(data) and data[position] in _LINE_TYPES):
            self._in_line = True
            self._partial = data[-1:] if data.endswith(b"\r") else b""
        else:
            self._partial = data[position:]

    def _read_line(self, data: bytes, position: int, end: int) -> None:
        if self._in_line:
            self._in_line = False
            self._end_element()
            return
        kind = data[position]
        if kind in _LINE_TYPES:
            self._end_element()
            return
        length = int(data[position + 1 : end])
        # A length of -1 is a null array or a null string: nothing follows.
        if kind == ord("*"):
            self._missing += max(length, 0)
            self._end_element()
        elif kind == ord("$"):
            if length >= 0:
                self._to_skip = length + 2
            else:
                self._end_element()
        else:
            raise ValueError("unknown reply type")

    def _end_element(self) -> None:
        self.elements += 1
        self._missing -= 1
        if not self._missing:
            self._replies -= 1
            self._missing = 1


class Retained:
    """Bytes since the last point that is known as the start of a reply, in order to begin to skip there.

    The parser tells how many replies ended in a piece, but not where.
    """

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.replies = 0
        """Number of replies that ended in these bytes."""
        self._size = 0

    @property
    def complete(self) -> bool:
        """False if there were more bytes than are retained."""
        return self._size <= _MAX_RETAINED_BYTES

    def add(self, data: bytes, replies: int) -> None:
        """Append bytes in which `replies` replies ended, and after which another one is incomplete."""
        self._size += len(data)
        if self.complete:
            self.pieces.append(data)
            self.replies += replies
            if replies and self._size > _FORGOTTEN_BYTES:
                self._forget_replies()
        else:
            self.pieces.clear()

    def _forget_replies(self) -> None:
        """Forget the replies that have ended, unless it takes long to find where: large strings are found at once."""
        skipper = ReplySkipper(self.replies)
        for number, piece in enumerate(self.pieces, 1):
            rest = skipper.feed(piece)
            if rest is not None:
                self.pieces = [rest, *self.pieces[number:]]
                self._size, self.replies = sum(map(len, self.pieces)), 0
                return
            if skipper.elements > _FORGOTTEN_ELEMENTS:
                return

    def clear(self) -> None:
        """Forget all bytes, because a reply ended exactly here."""
        if self._size:
            self.pieces = []
            self._size = self.replies = 0
