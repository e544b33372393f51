"""Numbered lines of a program's output, kept until the pod ends, for all who follow them.

A record is one line of JSON: `n` counts from 1 without gaps over both streams, `s` is the stream, `t` the text; `more`,
`replaces` and `end` as in LinePart, left out if they have its defaults. The last record may be `{"n": …, "cut": true}`:
the lines have reached their limit, and the rest of the output is only in the stored stdout and stderr.
"""

import asyncio
import errno
import json
import os
from array import array

from infra.contract.execution import LinePart, OutputStream
from infra.pod_runner.private_files import private_file

READ_BYTES = 64 * 1024


class LineLog:
    """Log of at most `limit_bytes`, in a file without a name, whose descriptor is `fd`."""

    def __init__(self, limit_bytes: int) -> None:
        self.fd = private_file()
        self._limit_bytes = limit_bytes
        self._ends = array("Q", [0])
        self._is_cut = self._is_closed = False
        self._changed = asyncio.Event()

    @property
    def count(self) -> int:
        """Number of the last record."""
        return len(self._ends) - 1

    @property
    def size_bytes(self) -> int:
        """Size of all records."""
        return self._ends[-1]

    async def add(self, stream: OutputStream, part: LinePart) -> bool:
        """Add a record; return False if the log takes no more."""
        if self._is_cut:
            return False
        record = {"n": self.count + 1, "s": stream, "t": part.text}
        record |= {name: getattr(part, name) for name in ("more", "replaces") if getattr(part, name)}
        if part.end != "\n":
            record["end"] = part.end
        line = json.dumps(record, ensure_ascii=False).encode() + b"\n"
        if self.size_bytes + len(line) > self._limit_bytes:
            self._is_cut = True
            line = json.dumps({"n": self.count + 1, "cut": True}).encode() + b"\n"
        if os.pwrite(self.fd, line, self.size_bytes) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._ends.append(self.size_bytes + len(line))
        self._wake()
        return not self._is_cut

    def close(self) -> None:
        """Note that no further record comes."""
        self._is_closed = True
        self._wake()

    def read(self, after: int) -> tuple[bytes, int]:
        """Return some of the records after number `after`, and the number of the last of them."""
        last, start = after, self._ends[min(after, self.count)]
        while last < self.count and (last == after or self._ends[last + 1] - start <= READ_BYTES):
            last += 1
        return os.pread(self.fd, self._ends[min(last, self.count)] - start, start), last

    async def wait(self, after: int, timeout_s: float) -> bool:
        """Wait for a record after number `after`; return False if none will come. Returns True after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.count <= after and not self._is_closed:
                    await self._changed.wait()
        except TimeoutError:
            return True
        return self.count > after

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
