"""Every command that reaches a Redis server, as its MONITOR tells, without those inside scripts."""

import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Thread
from urllib.parse import urlsplit

from infra.settings import RedisTcpSettings

HANDSHAKE = {"hello", "client", "auth", "select", "monitor"}
"""Commands of a connection, not of its user."""
_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"')


class Monitor:
    """Commands seen so far: the name in lower case, and the arguments."""

    def __init__(self, connection: socket.socket) -> None:
        self._lines = connection.makefile("r", encoding="utf-8", errors="replace")
        self._lines.readline()  # +OK
        self._seen: list[Sequence[str]] = []
        self._thread = Thread(target=self._read, daemon=True)
        self._thread.start()

    def commands(self) -> Sequence[Sequence[str]]:
        """Return the commands so far."""
        return tuple(self._seen)

    def _read(self) -> None:
        # +1700000000.123456 [0 127.0.0.1:40000] "evalsha" "<digest>" …; inside a script [0 lua].
        for line in self._lines:
            head, _, rest = line.partition("] ")
            words = _WORD.findall(rest)
            if not head.endswith(" lua") and words and words[0].lower() not in HANDSHAKE:
                self._seen.append((words[0].lower(), *words[1:]))


@contextmanager
def monitored(redis: RedisTcpSettings) -> Iterator[Monitor]:
    """Watch a server within the context."""
    address = urlsplit(redis.url)
    with socket.create_connection((address.hostname or "", address.port or 0)) as connection:
        connection.sendall(b"MONITOR\r\n")
        yield Monitor(connection)
        connection.shutdown(socket.SHUT_RDWR)
