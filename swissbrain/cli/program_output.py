"""Output of a program, from the events of a log back to the bytes that it printed."""

import hashlib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

NOT_TEXT = "\ufffd"
"""Character that a log has instead of bytes that are not UTF-8."""
LINE_ENDS = {"crlf": "\r\n", "none": "", "overwritten": "\r"}
TRUNCATED = "… output truncated; complete output: .run/"
_COPY_BYTES = 256 * 1024
_OVERWRITE = b"\r\x1b[K"


@dataclass
class StreamCopy:
    """One output stream of the program, copied to `to` while its lines arrive.

    A log is text in lines. Where it does not have the bytes that were printed, a terminal gets the text; any other
    receiver gets the rest in `finish`, from the complete output that the worker stores in that case.
    """

    to: BinaryIO
    is_terminal: bool
    printed_bytes: int = 0
    differs: bool = False
    """Whether what was copied is not the output: only if the program was executed twice, with different outputs."""
    _open: bytes = b""
    _held: bytearray = field(default_factory=bytearray)
    _holds: bool = False
    _sha256: Any = field(default_factory=hashlib.sha256)
    _repeated: Any = None
    _repeat_bytes: int = 0

    def line(self, data: Mapping[str, Any]) -> None:
        """Copy the data of an event `tool.output`."""
        text = str(data.get("text", ""))
        replaces = data.get("replaces_line") is True
        end_of_line = LINE_ENDS.get(str(data.get("line_end")), "\n")
        if text.startswith(TRUNCATED) or (not self.is_terminal and (end_of_line == "\r" or NOT_TEXT in text)):
            self._holds = True
        # A line that was overwritten may be overwritten again; other lines have ended.
        begin, self._open = _OVERWRITE if replaces else self._open, b""
        if data.get("more") is True:
            end_of_line = ""
        elif end_of_line == "\r":
            end_of_line, self._open = "", b"\n"
        self._copy(begin + (text + end_of_line).encode("utf-8", "replace"))

    def restart(self) -> None:
        """Expect the output from its beginning, because the program is executed again; it is not copied twice."""
        self._open, self._holds = b"", False
        self._held.clear()
        self._repeated, self._repeat_bytes = hashlib.sha256(), self.printed_bytes

    def finish(self, fetch: Callable[[BinaryIO], None] | None) -> None:
        """Copy what is missing. `fetch` writes the complete output to a file, where the worker has stored it."""
        self._holds = False
        if fetch is not None and self._copy_rest(fetch):
            return
        self._copy(bytes(self._held) + self._open)

    def _copy_rest(self, fetch: Callable[[BinaryIO], None]) -> bool:
        """Copy the complete output from where the copy ends; return False if the copy is not its beginning."""
        with tempfile.TemporaryFile() as complete:
            fetch(complete)
            complete.seek(0)
            copied = hashlib.sha256()
            left = self.printed_bytes
            while left and (part := complete.read(min(left, _COPY_BYTES))):
                copied.update(part)
                left -= len(part)
            if left or copied.digest() != self._sha256.digest():
                self.differs = not self.is_terminal
                return False
            while part := complete.read(_COPY_BYTES):
                self._write(part)
        return True

    def _copy(self, data: bytes) -> None:
        if self._holds:
            self._held += data
            return
        if self._repeat_bytes:
            repeated, data = data[: self._repeat_bytes], data[self._repeat_bytes :]
            self._repeated.update(repeated)
            self._repeat_bytes -= len(repeated)
            if not self._repeat_bytes:
                self.differs = self.differs or self._repeated.digest() != self._sha256.digest()
        self._write(data)

    def _write(self, data: bytes) -> None:
        if data:
            self.to.write(data)
            self.to.flush()
            self._sha256.update(data)
            self.printed_bytes += len(data)
