"""Files without a name: a program with the runner's uid can neither open nor replace them."""

import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

CHUNK_BYTES = 256 * 1024


def private_file() -> int:
    """Return the descriptor of an empty file that no path leads to: on disk, or in memory if `/tmp` has none such."""
    try:
        return os.open(tempfile.gettempdir(), os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        # An overlay of an older kernel, or gVisor. A call has three such files, which have 16 MB each at most.
        if error.errno not in {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL}:
            raise
        return os.memfd_create("private", os.MFD_CLOEXEC)


def path_of(fd: int) -> Path:
    """Return a path with which this process opens the file again, and no other process: it is not dumpable."""
    return Path(f"/proc/self/fd/{fd}")


def chunks_of(fd: int, size_bytes: int) -> Iterator[bytes]:
    """Yield the first `size_bytes` of a file. The file's own position stays."""
    at = 0
    while at < size_bytes and (chunk := os.pread(fd, min(CHUNK_BYTES, size_bytes - at), at)):
        at += len(chunk)
        yield chunk
