"""Lifetime of one HTTP connection: deadlines, refusals, and how it ends so that its client sees the answer.

The class uses private parts of uvicorn; the distribution therefore requires one minor version of it.
"""

import asyncio
import math
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from infra.http_connections import GuardState, refusal

_LINGER_BYTES = 8 << 20
"""Bytes that are discarded after a connection's last answer. A client that sends more has to wait."""


class ResponseTransport:
    """Transport of one response, with another way to close the connection."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = close


class TimedProtocol(HttpToolsProtocol):
    """Protocol of one connection whose client has to send and read in time."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: GuardState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._state = server_state
        self._limits = server_state.limits
        self._buffer = bytearray()  # received, and not yet passed to the parser
        self._complete = True  # the parser has seen the whole request
        self._request: RequestResponseCycle | None = None  # None while a head is read
        self._refused = False  # nothing more is read
        self._half_closed = False  # the client sends nothing more
        self._discarded = 0
        self._due = math.inf  # time at which the client must have sent what it owes
        self._unsent = 0
        self._stalled_since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Register the connection and start the deadline of its first head."""
        super().connection_made(transport)
        now = self.loop.time()
        self._due = now + self._limits.head_s
        self._stalled_since = now
        self._state.admit(self, now)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._state.forget(self)
        self._buffer.clear()
        super().connection_lost(exc)
        if self.cycle is not None:
            self.cycle.transport = self.transport  # a ResponseTransport refers to this object

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep the connection of a client that sends no more, but has sent a request whose answer has not begun."""
        if not self._half_closed and self._awaits_response() and self._complete:
            self._half_closed = True
            self._due = self.loop.time() + self._limits.linger_s
        return self._half_closed

    def _awaits_response(self) -> bool:
        cycle = self.cycle
        return cycle is not None and not cycle.response_started and not cycle.disconnected

    def shutdown(self) -> None:
        """Close the connection, or let it end with the answer under way."""
        if self._refused:
            self.transport.close()
        else:
            super().shutdown()

    def give_up(self) -> None:
        """Answer a request under way with 503, if its answer has not begun: the server is about to stop."""
        if self._awaits_response() and not self._refused:
            self._refuse(503, "the server is shutting down; the request may have been carried out")

    def check_deadlines(self, now: float) -> None:
        """Close the connection if its client sends or reads too slowly."""
        self._check_reader(now)
        if self._due > now or self.transport.is_closing():
            return
        if (self._refused or self._half_closed) and self.transport.get_write_buffer_size():
            self._due = now + self._limits.linger_s
        elif self._refused:
            self.transport.abort()
        elif self._half_closed:
            self.transport.close()
        elif self.flow.read_paused:  # the application reads too slowly, not the client
            self._due = now + self._limits.body_s
        elif not self._complete:
            self._refuse(408, f"the request's body did not arrive within {self._limits.body_s:g} s")
        elif self._buffer:
            self._refuse(408, f"the request's head did not arrive within {self._limits.head_s:g} s")
        else:
            self.transport.close()

    def _check_reader(self, now: float) -> None:
        unsent, closing = self.transport.get_write_buffer_size(), self.transport.is_closing()
        # In these states nothing is added to the buffer, so that its size changes only if the client reads.
        if unsent and (closing or self._refused or self.flow.write_paused) and unsent == self._unsent:
            cut_short = closing and self.cycle is not None and not self.cycle.response_complete
            if now - self._stalled_since > (self._limits.linger_s if cut_short else self._limits.stall_s):
                self.transport.abort()
        else:
            self._unsent, self._stalled_since = unsent, now

    def refuse_connection(self, *, lingers: bool) -> None:
        """Answer 503 and close the connection, with `lingers` so that a client sees it whose request has come."""
        self._refused = True
        self.transport.write(refusal(503, "the server has no free connection"))
        if lingers:
            self._linger()
        else:
            self.transport.close()

    def _refuse(self, status: int, reason: str) -> None:
        """Answer the current request with an error, unless its answer has begun, and close the connection."""
        self._refused = True
        self._state.rejected(status, reason, self.loop.time())
        request = self._request
        if request is not None and not request.response_complete:
            request.disconnected = True
            request.message_event.set()
        if request is not None and request.response_started:
            self.transport.close()
            return
        self.transport.write(refusal(status, reason))
        self._linger()

    def _end_response(self) -> None:
        """Close the connection after the response to a request with a body."""
        if self._complete or self.transport.is_closing():
            self.transport.close()
        else:
            self._linger()

    def _linger(self) -> None:
        """End what is sent, and let the client see it: discard for a moment what it still sends."""
        self._refused = True
        self._buffer.clear()
        self.transport.write_eof()
        self.flow.resume_reading()
        self._due = self.loop.time() + self._limits.linger_s

    def _discard(self, size: int) -> None:
        self._discarded += size
        if self._discarded > _LINGER_BYTES:
            self.flow.pause_reading()
