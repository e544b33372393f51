"""Requests that the application sees, however their bytes are split into packets."""

import asyncio
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
import uvicorn
from hypothesis import example, given, settings
from hypothesis import strategies as st

from infra.http_connections import GuardState
from infra.http_guard import GuardedProtocol
from infra.http_limits import HttpLimits
from tests.asgi.support import HOST, Recorder, Seen, statuses

LIMIT = 300
NAMES = st.sampled_from([b"a", b"x-long-name", b"Upgrade", b"Connection", b"upgrade-insecure-requests", b"Cookie"])
VALUES = st.sampled_from([b"", b"x", b"keep-alive, Upgrade", b"h2c", b"a  b", b"\xe9"])
BLANKS = st.sampled_from([b"", b" ", b"\t", b"  \t "])
INNER = b"GET /inner HTTP/1.1\r\n" + HOST + b"\r\n"
BODIES = st.one_of(st.binary(max_size=40), st.sampled_from([INNER, b"\r\n\r\n", b"\r\n" + INNER, b"0\r\n\r\n"]))


@dataclass
class Request:
    """Request, and its bytes on the wire."""

    method: bytes
    path: bytes
    headers: list[tuple[bytes, bytes, bytes, bytes]]
    body: bytes
    chunks: list[bytes] | None
    empty_line: bool

    def wire(self) -> bytes:
        """Return the request as a client sends it."""
        lines = [b"Host: x"]
        lines += [b"%s:%s%s%s" % (name, before, value, after) for name, before, value, after in self.headers]
        if self.chunks is not None:
            lines.append(b"Transfer-Encoding: chunked")
            body = b"".join(b"%x;e=1\r\n%s\r\n" % (len(chunk), chunk) for chunk in self.chunks if chunk)
            body += b"0\r\nx-trailer: 1\r\n\r\n"
        else:
            body = self.body
            if body or self.method == b"POST":
                lines.append(b"Content-Length: %d" % len(body))
        head = b"\r\n".join([b"%s %s HTTP/1.1" % (self.method, self.path), *lines, b"", b""])
        return (b"\r\n" if self.empty_line else b"") + head + body

    def seen(self) -> Seen:
        """Return the request as the application has to see it."""
        headers = [(b"host", b"x")]
        headers += [(_name(name), value) for name, _, value, _ in self.headers]
        if self.chunks is not None:
            return Seen(
                "POST", self.path.decode(), [*headers, (b"transfer-encoding", b"chunked")], b"".join(self.chunks)
            )
        if self.body or self.method == b"POST":
            headers.append((b"content-length", str(len(self.body)).encode()))
        return Seen(self.method.decode(), self.path.decode(), headers, self.body)


def _name(name: bytes) -> bytes:
    return b"x-ignored-upgrade" if name == b"Upgrade" else name.lower()


REQUESTS = st.builds(
    Request,
    method=st.sampled_from([b"GET", b"POST", b"DELETE", b"FOO", b"M-search"]),
    path=st.sampled_from([b"/", b"/a%2Fb", b"/stream"]),
    headers=st.lists(st.tuples(NAMES, BLANKS, VALUES, BLANKS), max_size=5),
    body=BODIES,
    chunks=st.none(),
    empty_line=st.booleans(),
)
CHUNKED = st.builds(
    Request,
    method=st.just(b"POST"),
    path=st.just(b"/"),
    headers=st.lists(st.tuples(NAMES, BLANKS, VALUES, BLANKS), max_size=3),
    body=st.just(b""),
    chunks=st.lists(BODIES, max_size=3),
    empty_line=st.booleans(),
)


class Wire(asyncio.Transport):
    """Transport that records what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closing = False
        self.paused = False

    def write(self, data: Any) -> None:
        if not self.closing:
            self.written += bytes(data)

    def write_eof(self) -> None: ...

    def close(self) -> None:
        self.closing = True

    abort = close

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def get_write_buffer_size(self) -> int:
        return 0


class CountingParser:
    """Parser that counts the bytes it is given."""

    def __init__(self, parser: Any) -> None:
        self._parser = parser
        self.sizes: list[int] = []

    def feed_data(self, data: bytes) -> None:
        self.sizes.append(len(data))
        self._parser.feed_data(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parser, name)


class SearchedBuffer(bytearray):
    """Buffer that counts the bytes it is searched through."""

    searched = 0

    def find(self, *args: Any) -> int:
        self.searched += min(len(self), args[2]) - args[1]
        return super().find(*args)


@dataclass
class Outcome:
    """Result of the packets."""

    requests: list[Seen]
    answers: bytes
    parser: CountingParser
    buffer: SearchedBuffer
    closed: bool


def run(packets: list[bytes], limit: int = LIMIT) -> Outcome:
    """Give the packets to a connection, each when the application has done what it could with those before."""

    async def serve() -> Outcome:
        app, wire = Recorder(), Wire()
        config = uvicorn.Config(app, http=GuardedProtocol, log_config=None, access_log=False, ws="none")
        protocol = GuardedProtocol(config, GuardState(HttpLimits(10, head_bytes=limit)), {})
        parser, buffer = CountingParser(protocol.parser), SearchedBuffer()
        vars(protocol).update(parser=parser, _buffer=buffer)
        protocol.connection_made(wire)
        for packet in packets:
            if not wire.closing:
                protocol.data_received(packet)
            await _idle(protocol)
        await _idle(protocol)
        closed = wire.closing or protocol._refused
        protocol.connection_lost(None)
        await _idle(protocol)
        return Outcome(app.requests, wire.written, parser, buffer, closed)

    return asyncio.run(serve())


async def _idle(protocol: GuardedProtocol) -> None:
    """Wait until each running request has got as far as it can."""
    for _ in range(200):
        await asyncio.sleep(0)
        if protocol.cycle is None or protocol.cycle.response_complete:
            return
        if not protocol.cycle.message_event.is_set() and protocol.cycle.more_body:
            return


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    """Return the data cut at the offsets."""
    offsets = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(offsets)]


CUTS = st.lists(st.integers(0, 600), max_size=12)


@settings(deadline=None)
@given(st.lists(REQUESTS, min_size=1, max_size=4), st.none() | CHUNKED, CUTS)
def test_the_application_sees_exactly_the_requests_that_were_sent(
    requests: list[Request], last: Request | None, cuts: list[int]
) -> None:
    requests = [*requests, *([last] if last else [])]
    outcome = run(split(b"".join(request.wire() for request in requests), cuts))
    expected = [request.seen() for request in requests]
    # A head over the limit ends the connection, and it is the only reason for an error.
    assert outcome.requests == expected[: len(outcome.requests)]
    if len(outcome.requests) < len(expected):
        refused = requests[len(outcome.requests)]
        assert refused.wire().lstrip(b"\r\n").index(b"\r\n\r\n") + 4 > LIMIT
        assert statuses(outcome.answers)[-1] == 431
    else:
        assert statuses(outcome.answers) == [200] * len(expected)


TOKENS = st.sampled_from(
    [
        b"GET / HTTP/1.1\r\n",
        b"POST /p HTTP/1.1\r\n",
        b"GET / HTTP/1.0\r\n",
        b"GET / RTSP/1.0\r\n",
        b"GET /\r\n",
        b"Host: x\r\n",
        b"Content-Length: 5\r\n",
        b"Content-Length: 0\r\n",
        b"Content-Length: \r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip\r\n",
        b"Connection: Upgrade\r\n",
        b"Connection: close\r\n",
        b"Upgrade: h2c\r\n",
        b" folded\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b"hello",
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        b"0\r\n",
        b"x" * 301,
        b"\0",
        INNER,
    ]
)


@given(st.lists(TOKENS, max_size=14).map(b"".join), CUTS)
@example(b"POST /p HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + INNER, [58, 63])
@example(b"\r\n" * 10 + INNER, [1, 2, 3, 4, 5])
def test_any_bytes_mean_the_same_in_one_packet_and_in_many(data: bytes, cuts: list[int]) -> None:
    whole, parts, single = run([data]), run(split(data, cuts)), run([bytes([byte]) for byte in data])
    assert parts.requests == whole.requests == single.requests
    assert statuses(parts.answers) == statuses(whole.answers) == statuses(single.answers)


@pytest.mark.parametrize("packet", [1, 100, 65_536])
def test_the_work_for_a_head_grows_with_its_size_and_not_with_its_packets(packet: int) -> None:
    head = b"POST / HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 20_000  # the parser is told this method for any other
    outcome = run([head[start : start + packet] for start in range(0, len(head), packet)], limit=65_536)
    assert outcome.parser.sizes == []
    assert outcome.buffer.searched <= 6 * len(head)
    complete = head + b"\r\n\r\n"
    outcome = run([complete[start : start + packet] for start in range(0, len(complete), packet)], limit=65_536)
    assert outcome.parser.sizes == [len(complete)]
    assert len(outcome.requests) == 1
