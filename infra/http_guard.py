"""HTTP protocol of both servers: uvicorn's protocol for httptools, which gets a request only within bounds.

uvicorn passes whatever arrives to the parser, which buffers a head without limit, drops the body of a request with
`Upgrade`, and takes that body for the next request. `GuardedProtocol` buffers each head itself, passes it on when it is
complete, then passes exactly its body, and holds the next request until the answer is complete. If the guard and the
parser disagree on where a request ends, the connection is refused, so that nothing can be smuggled between them.

The classes use private parts of uvicorn; the distribution therefore requires one minor version of it.
"""

import asyncio
import math
import re
from typing import Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from infra.http_connections import GuardState, refusal

_END_OF_HEAD = b"\r\n\r\n"
_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)
_FEED_BYTES = 65_536
_LINGER_S = 1.0
"""Time for which a refused client's data is read and discarded. A socket closed with unread data is reset, and the
client would not see the answer."""
_LINGER_BYTES = 1 << 20


class _UnknownLength(int):
    """Length of an answer that ends with its connection. Comparisons and subtraction leave it unknown."""

    def __sub__(self, _other: int) -> "_UnknownLength":
        return self

    def __lt__(self, _other: int) -> bool:
        return False

    def __ne__(self, _other: object) -> bool:
        return False

    __hash__ = int.__hash__


class GuardedProtocol(HttpToolsProtocol):
    """Protocol of one connection."""

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
        self._searched = 0  # bytes of the buffer without an end of head
        self._empty_line = False
        self._body_left = 0
        self._chunked = False
        self._overhead = 0  # bytes of chunk headers and trailers since the last byte of the body
        self._begun = self._has_headers = False
        self._complete = True  # the parser has seen the whole request
        self._request: RequestResponseCycle | None = None  # None while a head is read
        self._refused = False
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

    def data_received(self, data: bytes) -> None:
        """Buffer the data and pass what is complete to the parser."""
        self._unset_keepalive_if_required()
        if self._refused or (self._chunked and self._complete):
            self._discard(len(data))
            return
        self._buffer += data
        self._advance()

    def _advance(self) -> None:
        while self._buffer and not self._refused and not self.transport.is_closing():
            if self._chunked or self._body_left:
                self._take_body()
            elif self.cycle is not None and not self.cycle.response_complete:
                # One request at a time: uvicorn would start a task for each of the thousands that a packet can hold,
                # and a refusal could overtake the answer to an earlier request.
                self.flow.pause_reading()
                return
            elif not self._take_head():
                return

    def _take_head(self) -> bool:
        """Pass a head to the parser. Return False if it is not complete."""
        buffer, limit = self._buffer, self._limits.head_bytes
        self._request = None
        # RFC 9112 asks servers to ignore an empty line before a request. Not more, because empty lines have no end.
        if not self._empty_line and buffer.startswith(b"\r\n"):
            del buffer[:2]
            self._empty_line, self._searched = True, 0
        if buffer and not (buffer[:1].isupper() or buffer[:1] == b"\r"):
            # A client that speaks another protocol, such as TLS, may never send an end of head.
            self._refuse(400, "the request does not start with an HTTP method")
            return False
        end = buffer.find(_END_OF_HEAD, max(0, self._searched - 3), limit)
        if end < 0:
            self._searched = len(buffer)
            self._due = min(self._due, self.loop.time() + self._limits.head_s)
            if self._searched >= limit:
                self._refuse(431, f"the request head is larger than {limit} bytes")
            return False
        end += len(_END_OF_HEAD)
        head = bytes(buffer[:end])
        del buffer[:end]
        self._searched, self._empty_line, self._due = 0, False, math.inf
        self._begun = self._complete = self._has_headers = False
        # RFC 9110 allows a server to ignore Upgrade. The parser would not: it treats all that follows as a foreign
        # protocol.
        if not self._feed(_UPGRADE.sub(b"\r\nx-ignored-upgrade:", head)):
            return False
        has_body = self._chunked or self._body_left > 0
        if not self._begun or self._complete == has_body:
            self._refuse(400, "the length of the request's body is ambiguous")
        elif has_body:
            self._due = self.loop.time() + self._limits.body_s
        return True

    def _take_body(self) -> None:
        """Pass a part of the body to the parser."""
        size = _FEED_BYTES if self._chunked else min(_FEED_BYTES, self._body_left)
        part = bytes(self._buffer[:size])
        del self._buffer[:size]
        if self._chunked:
            self._overhead += len(part)
        else:
            self._body_left -= len(part)
        if not self._feed(part):
            return
        if self._chunked:
            if self._complete:
                # Only the parser knows where a chunked body ends, so that nothing may follow it on this connection.
                self._discard(len(self._buffer))
                self._buffer.clear()
            elif self._overhead > self._limits.head_bytes:
                self._refuse(
                    431, f"the headers of a chunk or the trailers are larger than {self._limits.head_bytes} bytes"
                )
        elif self._complete != (self._body_left == 0):
            self._refuse(400, "the length of the request's body is ambiguous")
        if self._complete:
            # An early answer has started uvicorn's keep-alive timer, and the rest of the body has cancelled it.
            answered = self.cycle.response_complete
            self._due = self.loop.time() + self._limits.keep_alive_s if answered else math.inf

    def _feed(self, data: bytes) -> bool:
        """Pass data to the parser. Return False if the request was refused."""
        try:
            self.parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if self._chunked and self._complete:  # bytes after the last chunk, which are discarded
                return True
            self._refuse(400, "the request is not valid HTTP/1.1")
        return not self._refused

    def on_message_begin(self) -> None:
        """Start a request. Raises ValueError, which stops the parser, for a second request within the data of one."""
        if self._begun:
            raise ValueError("the parser sees a request inside another")
        self._begun = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header. Trailers are ignored: the application has the headers already, and has checked them."""
        if self._has_headers:
            return
        value = value.rstrip(b" \t")  # the parser removes white space before a value only
        super().on_header(name, value)
        name = self.headers[-1][0]
        if name == b"content-length":
            self._body_left = int(value)
        elif name == b"transfer-encoding":
            self._chunked = True

    def on_headers_complete(self) -> None:
        """Start the application. Raises ValueError, which stops the parser, for CONNECT."""
        if self.parser.should_upgrade():
            raise ValueError("neither Upgrade nor CONNECT is served")
        super().on_headers_complete()
        self._has_headers = True
        self._request = self.cycle
        if self._chunked:
            self.cycle.keep_alive = False
        if self.scope["http_version"] != "1.1":  # HTTP/1.0 knows no chunks: the end of the connection ends the answer
            self.cycle.chunked_encoding = False
            self.cycle.expected_content_length = _UnknownLength()

    def on_body(self, body: bytes) -> None:
        """Pass a part of the body to the application."""
        self._overhead = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that the client has sent the whole request."""
        self._complete = True
        if not self.cycle.response_complete:
            self._state.waiting.pop(self, None)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Continue with a request that arrived during the answer."""
        super().on_response_complete()
        self._state.waiting[self] = None
        self._state.waiting.move_to_end(self)
        if self._buffer and not self.transport.is_closing():
            self._unset_keepalive_if_required()
            self._advance()

    def shutdown(self) -> None:
        """Close the connection, or let it end with the answer under way."""
        if self._refused:
            self.transport.close()
        else:
            super().shutdown()

    def check_deadlines(self, now: float) -> None:
        """Close the connection if its client sends or reads too slowly."""
        self._check_reader(now)
        if self._due > now or self.transport.is_closing():
            return
        if self._refused:
            self.transport.abort()
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
        # In both states nothing is added to the buffer, so that its size changes only if the client reads.
        if unsent and (closing or self.flow.write_paused) and unsent == self._unsent:
            cut_short = closing and self.cycle is not None and not self.cycle.response_complete
            if now - self._stalled_since > (_LINGER_S if cut_short else self._limits.stall_s):
                self.transport.abort()
        else:
            self._unsent, self._stalled_since = unsent, now

    def refuse_connection(self) -> None:
        """Answer 503 and close the connection, before any request is read."""
        self._refused = True
        self.transport.write(refusal(503, "the server has no free connection"))
        self.transport.close()

    def _refuse(self, status: int, reason: str) -> None:
        """Answer the current request with an error, unless its answer has begun, and close the connection."""
        self._refused = True
        self._buffer.clear()
        now = self.loop.time()
        self._state.rejected(status, reason, now)
        request = self._request
        if request is not None and not request.response_complete:
            request.disconnected = True
            request.message_event.set()
        if request is not None and request.response_started:
            self.transport.close()
            return
        self.transport.write(refusal(status, reason))
        self.transport.write_eof()
        self.flow.resume_reading()
        self._due = now + _LINGER_S

    def _discard(self, size: int) -> None:
        self._discarded += size
        if self._discarded > _LINGER_BYTES:
            self.transport.abort()
