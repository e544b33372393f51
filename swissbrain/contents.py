"""Contents of files to upload, read in parts."""

import hashlib
import io
import os
from pathlib import Path
from typing import BinaryIO

from swissbrain.errors import ClientError

CHUNK_BYTES = 256 * 1024
HASHED_BYTES = 4 * 1024 * 1024


class Digests:
    """Size and digests of a content, from its parts in order."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self._sha256 = hashlib.sha256()
        # No guard against attackers: object stores that know no SHA-256 check uploads by MD5.
        self._md5 = hashlib.md5(usedforsecurity=False)

    def add_part(self, source: BinaryIO) -> bool:
        """Add the next part of a file; return False at its end. Raises OSError."""
        part = source.read(HASHED_BYTES)
        self.size_bytes += len(part)
        self._sha256.update(part)
        self._md5.update(part)
        return bool(part)

    @property
    def hex(self) -> dict[str, str]:
        """Digests of the parts so far in hex, by the names that the API has for them."""
        return {"sha256": self._sha256.hexdigest(), "md5": self._md5.hexdigest()}


def open_content(content: Path | bytes) -> BinaryIO:
    """Return a file with the content. Raises OSError."""
    return content.open("rb") if isinstance(content, Path) else io.BytesIO(content)


def read_part(source: BinaryIO, start: int, end: int) -> bytes:
    """Return up to CHUNK_BYTES bytes from `start` on, before `end`. Raises ClientError for a file that ends before."""
    source.seek(start, os.SEEK_SET)
    part = source.read(min(CHUNK_BYTES, end - start))
    if not part:
        raise ClientError("the file has become shorter while it was uploaded")
    return part
