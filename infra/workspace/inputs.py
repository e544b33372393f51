"""Input files in the store: signed uploads by clients, and reads that compare the digest. Blocking, except for keys.

The store is asked to refuse other bytes than the announced ones: length and checksum are part of the signature. A store
may accept headers and not check them, so nothing relies on it: the run's start compares what the store reports, and
each read compares the SHA-256.
"""

import base64
import hashlib
import secrets
from collections.abc import Iterator, Mapping

from infra.contract.errors import FileMissing, InputChanged
from infra.contract.files import FileEntry
from infra.workspace.bucket import Bucket
from infra.workspace.cancellation import Cancellation
from infra.workspace.threads import each


def new_upload(path: str, size_bytes: int, sha256: str) -> FileEntry:
    """Return the entry of a file that is to be uploaded, with an unused object key. No claim has the fence 0."""
    key = f"files/0-{secrets.token_hex(8)}/{path}"
    return FileEntry(key=key, size_bytes=size_bytes, modified_ms=0, sha256=sha256)


def upload_headers(size_bytes: int, sha256: str, md5: str | None) -> dict[str, str]:
    """Return the headers that an upload must have: the length, and the digest `md5` (hex) if given, else `sha256`."""
    checksum = ("content-md5", md5) if md5 else ("x-amz-checksum-sha256", sha256)
    return {"content-length": str(size_bytes), checksum[0]: _header(checksum[1])}


def missing_uploads(
    bucket: Bucket, prefix: str, files: Mapping[str, FileEntry], cancellation: Cancellation
) -> list[str]:
    """Return the paths whose objects are missing, or differ in size or (if the store keeps it) in SHA-256; sorted.

    Raises FilesUnavailable.
    """

    def is_there(path: str) -> bool:
        entry = files[path]
        try:
            size_bytes, sha256 = bucket.head(prefix + entry.key)
        except FileMissing:
            return False
        # The checksum of an object that was stored in parts is not that of its bytes; it has a suffix.
        differs = sha256 is not None and "-" not in sha256 and sha256 != _header(entry.sha256 or "")
        return size_bytes == entry.size_bytes and not differs

    paths = sorted(files)
    missing = [path for path, there in zip(paths, each(is_there, paths, cancellation), strict=True) if not there]
    if missing:
        # The answer to a HEAD has no body, so that a missing bucket looks like a missing object. A listing fails.
        bucket.page(prefix)
    return missing


def read_file(bucket: Bucket, key: str, path: str, entry: FileEntry, max_bytes: int | None, offset: int = 0) -> bytes:
    """Return all bytes of a file, or at most `max_bytes` from `offset` on.

    Raises FileMissing, FilesUnavailable, InputChanged.
    """
    if entry.sha256 is None:
        return bucket.get(key, max_bytes, offset)
    data, before = bytearray(), 0 if max_bytes is None else offset
    with bucket.open(key) as chunks:
        # The digest of a part is not known, so the file is read to its end.
        for chunk in verified(path, entry, chunks):
            if max_bytes is None or len(data) < max_bytes:
                data += chunk[before:]
            before = max(0, before - len(chunk))
    return bytes(data[:max_bytes])


def verified(path: str, entry: FileEntry, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Pass on the chunks of a file. Raises InputChanged, after the last chunk at the latest, if they are others."""
    if entry.sha256 is None:
        yield from chunks
        return
    digest, size_bytes = hashlib.sha256(), 0
    for chunk in chunks:
        digest.update(chunk)
        size_bytes += len(chunk)
        if size_bytes > entry.size_bytes:
            break
        yield chunk
    if size_bytes != entry.size_bytes or digest.hexdigest() != entry.sha256:
        raise InputChanged(
            f"the input file '{path}' was overwritten in the object store: its SHA-256 is not {entry.sha256} with "
            f"{entry.size_bytes} bytes, as announced; create another run with the right file"
        )


def _header(digest: str) -> str:
    """Return a digest (hex) as S3 writes it in headers."""
    return base64.b64encode(bytes.fromhex(digest)).decode()
