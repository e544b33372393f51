"""Snapshot of a running Valkey or Redis, taken over the network as a replica takes it.

`SYNC` answers with the length of a snapshot (an RDB file) and its bytes, then with all further writes; the connection
is closed before those. Managed services such as Upstash do not offer it.
"""

import socket
import ssl
from contextlib import closing
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from infra.contract.errors import StoreRejected, StoreUnavailable

SILENCE_S = 120.0
"""Longest silence of the server. It sends line breaks while it writes the snapshot."""
CONNECT_S = 10.0
MAGIC = (b"REDIS", b"VALKEY")
"""First bytes of a snapshot."""
MAX_LINE = 1024
CHUNK = 1024 * 1024


def take(url: str, target: BinaryIO) -> int:
    """Write a snapshot of the server at `redis://…` or `rediss://…` to a file; return its length in bytes.

    Raises StoreUnavailable and StoreRejected.
    """
    try:
        with closing(_connect(url)) as connection, connection.makefile("rb") as replies:
            for command in _login(url):
                connection.sendall(_encoded(*command))
                _line(replies)
            connection.sendall(_encoded("SYNC"))
            length = _length(_line(replies))
            _copy(replies, target, length)
    except OSError as error:
        raise StoreUnavailable(f"the server of REDIS_URL cannot be reached: {type(error).__name__}") from error
    return length


def _connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    host = parts.hostname or "127.0.0.1"
    connection = socket.create_connection((host, parts.port or 6379), timeout=CONNECT_S)
    connection.settimeout(SILENCE_S)
    if parts.scheme == "rediss":
        return ssl.create_default_context().wrap_socket(connection, server_hostname=host)
    return connection


def _login(url: str) -> list[tuple[str, ...]]:
    parts = urlsplit(url)
    if parts.password is None:
        return []
    user = (unquote(parts.username),) if parts.username else ()
    return [("AUTH", *user, unquote(parts.password))]


def _encoded(*words: str) -> bytes:
    texts = [word.encode() for word in words]
    return b"*%d\r\n" % len(texts) + b"".join(b"$%d\r\n%s\r\n" % (len(text), text) for text in texts)


def _line(replies: BinaryIO) -> bytes:
    """Return the next line that is not empty. Raises StoreRejected for an error reply."""
    while True:
        line = replies.readline(MAX_LINE)
        if not line.endswith(b"\n"):
            raise StoreUnavailable("the snapshot was cut off: the server closed the connection")
        if line := line.rstrip(b"\r\n"):
            break
    if line.startswith(b"-"):
        raise StoreRejected(f"the server refuses a snapshot: {line[1:200].decode(errors='replace')}")
    return line


def _length(line: bytes) -> int:
    if not line.startswith(b"$") or not line[1:].isdigit():
        raise StoreRejected("the server sends a snapshot without its length; set 'repl-diskless-sync no'")
    return int(line[1:])


def _copy(replies: BinaryIO, target: BinaryIO, length: int) -> None:
    copied = 0
    while copied < length:
        data = replies.read(min(CHUNK, length - copied))
        if not data:
            raise StoreUnavailable(f"the snapshot was cut off after {copied} of {length} bytes")
        if copied == 0 and not data.startswith(MAGIC):
            raise StoreRejected("the server sends something else than a snapshot")
        target.write(data)
        copied += len(data)
