"""HTTP protocol of both servers: uvicorn's protocol for httptools, which gets a request only within bounds.

uvicorn passes whatever arrives to the parser, which buffers a head without limit, drops the body of a request with
`Upgrade`, and takes that body for the next request. `GuardedProtocol` buffers each head itself, passes it on when it is
complete, then passes exactly its body, and holds the next request until the answer is complete. If the guard and the
parser disagree on where a request ends, the connection is refused, so that nothing can be smuggled between them.

The classes use private parts of uvicorn; the distribution therefore requires one minor version of it. How long a client
may take, and how a connection ends, is in `infra.http_lifetime`.
"""

import math
import re
from typing import Any

import httptools

from infra.http_lifetime import ResponseTransport, TimedProtocol

_END_OF_HEAD = b"\r\n\r\n"
_REQUEST_LINE = re.compile(rb"([\w!#$%&'*+.^`|~-]+) (\S+) (HTTP/\d+(?:\.\d+)?)")
_VERSIONS = frozenset({b"HTTP/1.1", b"HTTP/1.0"})
_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)
_NO_ASCII = re.compile(rb"[\x80-\xff]")
_FEED_BYTES = 65_536


class _NotServed(Exception):
    """The request uses a part of HTTP that is not served. The message names it."""


class _UnknownLength(int):
    """Length of an answer that ends with its connection. Comparisons and subtraction leave it unknown."""

    def __sub__(self, _other: int) -> "_UnknownLength":
        return self

    def __lt__(self, _other: int) -> bool:
        return False

    def __ne__(self, _other: object) -> bool:
        return False

    __hash__ = int.__hash__


class GuardedProtocol(TimedProtocol):
    """Protocol of one connection."""

    _searched = 0  # bytes of the buffer without an end of head
    _empty_line = False
    _body_left = 0
    _chunked = False
    _overhead = 0  # bytes of chunk headers and trailers since the last byte of the body
    _method = ""
    _begun = False
    _has_headers = False

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
            if buffer.find(b"\n\n", max(0, self._searched - 1), limit) >= 0:
                # No head has this, so that the client would wait until its deadline.
                self._refuse(400, "the lines of a head must end in CRLF, not in LF")
                return False
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
        readable = self._readable(head)
        if readable is None or not self._feed(readable):
            return False
        has_body = self._chunked or self._body_left > 0
        if not self._begun or self._complete == has_body:
            self._refuse(400, "the length of the request's body is ambiguous")
        elif has_body:
            self._due = self.loop.time() + self._limits.body_s
        return True

    def _readable(self, head: bytes) -> bytes | None:
        """Return the head without what the parser does not accept, or None if the request was refused."""
        line, end, headers = head.partition(b"\r\n")
        found = _REQUEST_LINE.fullmatch(line)
        if found is None:  # the parser would take a line without a version for HTTP/0.9, and know other protocols
            self._refuse(400, "the request is not valid HTTP/1.1")
            return None
        method, target, version = found.groups()
        if version not in _VERSIONS:
            self._refuse(505, "only HTTP/1.1 and HTTP/1.0 are served")
            return None
        self._method = method.decode()
        # Some clients send other characters than ASCII in the target as they are typed.
        target = target if target.isascii() else _NO_ASCII.sub(lambda found: b"%%%02X" % ord(found[0]), target)
        # The parser knows some methods only; the application refuses any other one with the list of those it has.
        # RFC 9110 allows a server to ignore Upgrade. The parser would not: it treats all that follows as a foreign
        # protocol.
        return b"POST %s %s%s" % (target, version, _UPGRADE.sub(b"\r\nx-ignored-upgrade:", end + headers))

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
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            if self._chunked and self._complete:  # bytes after the last chunk, which are discarded
                return True
            named = exc.__context__
            self._refuse(400, str(named) if isinstance(named, _NotServed) else "the request is not valid HTTP/1.1")
        return not self._refused

    def on_message_begin(self) -> None:
        """Start a request. Raises ValueError, which stops the parser, for a second request within the data of one."""
        if self._begun:
            raise ValueError("the parser sees a request inside another")
        self._begun = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header. Trailers are ignored: the application has the headers already, and has checked them.

        Raises _NotServed, which stops the parser, for a transfer coding other than `chunked`.
        """
        if self._has_headers:
            return
        value = value.rstrip(b" \t")  # the parser removes white space before a value only
        super().on_header(name, value)
        name = self.headers[-1][0]
        if name == b"content-length":
            self._body_left = int(value)
        elif name == b"transfer-encoding":
            if value.lower() != b"chunked":
                raise _NotServed("the Transfer-Encoding must be 'chunked'; no other coding is served")
            self._chunked = True

    def on_headers_complete(self) -> None:
        """Start the application. Raises _NotServed, which stops the parser, unless exactly one Host is given."""
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() == "1.1"):
            raise _NotServed("a request must have one header 'Host'")
        super().on_headers_complete()
        self.scope["method"] = self._method
        self._has_headers = True
        self._request = self.cycle
        if self._chunked or self._body_left:
            transport: Any = ResponseTransport(self.transport, self._end_response)
            self.cycle.transport = transport
        # A client that expects 100 and gets an early answer does not send its body: its next request would be taken for
        # the body.
        if self._chunked or self.expect_100_continue:
            self.cycle.keep_alive = False
        if self.scope["http_version"] != "1.1":
            # HTTP/1.0 knows neither 100 nor chunks: the end of the connection ends the answer.
            self.cycle.waiting_for_100_continue = False
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
        if not self._refused:
            super().on_response_complete()
        self._state.waiting[self] = None
        self._state.waiting.move_to_end(self)
        if self._buffer and not self.transport.is_closing():
            self._unset_keepalive_if_required()
            self._advance()
        if self._half_closed:
            self._end_or_hurry()
