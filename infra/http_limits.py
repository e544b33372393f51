"""Limits on what clients of the API and the gateway may send and hold, and the number of connections that is safe."""

import resource
from dataclasses import dataclass
from pathlib import Path

RESERVED_DESCRIPTORS = 64
"""File descriptors kept for the server's own use: connections to Redis, files, DNS."""

_MIN_CONNECTIONS = 8
_MAX_DESCRIPTORS = 65_536
_LOG_INTERVAL_S = 10.0


@dataclass(frozen=True)
class HttpLimits:
    """Limits of one server. Times are in seconds.

    `head_bytes`: size of a request line with all headers. `head_s`, `body_s`: time for a client to send a head, or a
    body after its head. `keep_alive_s`: longer than clients keep an idle connection; otherwise a client may send a
    request just as the server closes it. `stall_s`: time for which a client may read nothing of an answer. `linger_s`:
    time for which the data of a client is discarded that was refused, or answered before its body was complete (a
    socket closed with unread data is reset, and the client would not see the answer); also the time in which a client
    that has closed its side of the connection is still answered (it may as well have left).
    """

    connections: int
    head_bytes: int = 65_536
    head_s: float = 30.0
    body_s: float = 60.0
    keep_alive_s: int = 75
    stall_s: float = 60.0
    linger_s: float = 1.0


def raise_descriptor_limit() -> None:
    """Raise the soft limit of open files to the hard limit, at most to 65,536."""
    # The soft limit is often 1,024, for the sake of programs that use select(). Neither server does.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def connection_limit(wanted: int, *, descriptors_each: int = 1, reserved: int = RESERVED_DESCRIPTORS) -> int:
    """Return `wanted`, or the smaller number of connections that the limit of open files allows; at least 8.

    `descriptors_each` is the number of file descriptors that a connection may need, with its own.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    free = soft - len(list(Path("/dev/fd").iterdir())) - reserved
    return max(_MIN_CONNECTIONS, min(wanted, free // descriptors_each))


class LogInterval:
    """Limits a log action to one line in 10 s, because clients without a token can cause it."""

    def __init__(self) -> None:
        self._silent_until = 0.0
        self._count = 0

    def count(self, now: float) -> int | None:
        """Count an occurrence. Return the number since the last line if a line may be written now, else None."""
        self._count += 1
        if now < self._silent_until:
            return None
        self._silent_until = now + _LOG_INTERVAL_S
        count, self._count = self._count, 0
        return count
