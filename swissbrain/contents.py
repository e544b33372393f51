"""Contents of files to upload, read in parts."""

import hashlib
import io
import os
from pathlib import Path
from typing import BinaryIO

from swissbrain.errors import ClientError

CHUNK_BYTES = 256 * 1024
HASHED_BYTES = 4 * 1024 * 1024


def open_content(content: Path | bytes) -> BinaryIO:
    """Return a file with the content. Raises OSError."""
    return content.open("rb") if isinstance(content, Path) else io.BytesIO(content)


def hash_part(source: BinaryIO, sha256: "hashlib._Hash") -> int:
    """Add the next part of a file to its hash; return the size of the part in bytes, 0 at the end."""
    part = source.read(HASHED_BYTES)
    sha256.update(part)
    return len(part)


def read_part(source: BinaryIO, start: int, end: int) -> bytes:
    """Return up to CHUNK_BYTES bytes from `start` on, before `end`. Raises ClientError for a file that ends before."""
    source.seek(start, os.SEEK_SET)
    part = source.read(min(CHUNK_BYTES, end - start))
    if not part:
        raise ClientError("the file has become shorter while it was uploaded")
    return part
