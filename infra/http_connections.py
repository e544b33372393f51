"""Connections of one server: which one is closed when there are too many, and when their deadlines are looked at."""

import asyncio
import logging
from collections import OrderedDict
from typing import Protocol

from uvicorn.server import ServerState

from infra.http_limits import HttpLimits, LogInterval
from infra.logging import log

_REASONS = {
    400: b"Bad Request",
    408: b"Request Timeout",
    431: b"Request Header Fields Too Large",
    503: b"Service Unavailable",
    505: b"HTTP Version Not Supported",
}


_MAX_REFUSED = 32
"""Connections over the limit that are kept for a moment; half of the descriptors that are reserved."""


class GuardedConnection(Protocol):
    """Part of a connection that the server's state uses."""

    transport: asyncio.Transport

    def refuse_connection(self, *, lingers: bool) -> None:
        """Answer 503 and close the connection, with `lingers` so that a client sees it whose request has come."""

    def check_deadlines(self, now: float) -> None:
        """Close the connection if its client sends or reads too slowly."""

    def give_up(self) -> None:
        """Answer a request under way with 503, if its answer has not begun: the server is about to stop."""


class GuardState(ServerState):
    """State that the connections of one server share.

    `guarded` holds all of them. `waiting` holds those whose client has to act next; first those whose last answer is
    oldest. `refused` holds some that were over the limit, until their clients have seen the answer.
    """

    def __init__(self, limits: HttpLimits) -> None:
        super().__init__()
        self.limits = limits
        self.guarded: set[GuardedConnection] = set()
        self.waiting: OrderedDict[GuardedConnection, None] = OrderedDict()
        self.refused: set[GuardedConnection] = set()
        self._full = LogInterval()
        self._rejected = LogInterval()

    def admit(self, connection: GuardedConnection, now: float) -> None:
        """Register a new connection. Over the limit, close the connection that has waited longest for its client."""
        self.guarded.add(connection)
        self.waiting[connection] = None
        if len(self.guarded) <= self.limits.connections:
            return
        evicted, _ = self.waiting.popitem(last=False)
        if (count := self._full.count(now)) is not None:
            log("server.full", level=logging.WARNING, limit=self.limits.connections, closed=count)
        if evicted is connection:  # every other connection is being answered
            self.guarded.discard(connection)
            lingers = len(self.refused) < _MAX_REFUSED
            if lingers:
                self.refused.add(connection)
            evicted.refuse_connection(lingers=lingers)
        else:
            evicted.transport.abort()

    def forget(self, connection: GuardedConnection) -> None:
        """Remove a closed connection."""
        self.guarded.discard(connection)
        self.refused.discard(connection)
        self.waiting.pop(connection, None)

    def rejected(self, status: int, reason: str, now: float) -> None:
        """Log a refused request."""
        if (count := self._rejected.count(now)) is not None:
            log("request.refused", status=status, reason=reason, count=count)

    def sweep(self, now: float) -> None:
        """Apply the deadlines of all connections."""
        # A timer for each connection would cost more than a small request, because most are cancelled unused.
        for connection in (*self.guarded, *self.refused):
            connection.check_deadlines(now)


def refusal(status: int, reason: str) -> bytes:
    """Return an error response that ends the connection. Its body is `reason` as one line of text."""
    text = f"{reason}\n".encode()
    lines = (
        b"HTTP/1.1 %d %s" % (status, _REASONS[status]),
        b"content-type: text/plain; charset=utf-8",
        b"content-length: %d" % len(text),
        b"connection: close",
    )
    return b"\r\n".join([*lines, b"", text])
