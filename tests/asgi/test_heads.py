"""Size of a request's head."""

from collections.abc import Iterator

import pytest

from tests.asgi.support import HOST, Running, get, serve, statuses

LIMIT = 65_536
START = b"GET / HTTP/1.1\r\n" + HOST
HUGE = {
    "a value without end": START + b"X: " + b"a" * 1_000_000,
    "a name without end": START + b"a" * 1_000_000,
    "a target without end": b"GET /" + b"a" * 1_000_000,
    "many lines": START + b"".join(b"x%d: 1\r\n" % number for number in range(20_000)),
    "a complete head": START + b"X: " + b"a" * 70_000 + b"\r\n\r\n",
    "a complete head of many lines": START + b"a: 1\r\n" * 20_000 + b"\r\n",
}


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with serve() as server:
        yield server


@pytest.mark.parametrize("size", [1_000_000, 10_000, 1000], ids=str)
@pytest.mark.parametrize("head", HUGE.values(), ids=HUGE)
def test_a_head_over_the_limit_is_refused_with_431(running: Running, head: bytes, size: int) -> None:
    before = len(running.app.requests)
    answer = running.exchange(*(head[start : start + size] for start in range(0, len(head), size)))
    assert statuses(answer) == [431]
    assert answer.endswith(b"the request head is larger than 65536 bytes\n")
    assert len(running.app.requests) == before


def padded(size: int) -> bytes:
    """Return a request whose head has `size` bytes."""
    head = get("/", b"X: ")
    return head.replace(b"X: ", b"X: " + b"a" * (size - len(head)))


@pytest.mark.parametrize(("size", "status"), [(LIMIT, 200), (LIMIT + 1, 431)])
@pytest.mark.parametrize("split", [None, 1, LIMIT - 1, LIMIT])
def test_the_limit_is_exact_however_the_head_is_split(
    running: Running, size: int, status: int, split: int | None
) -> None:
    head = padded(size)
    assert len(head) == size
    parts = [head] if split is None else [head[:split], head[split:]]
    assert statuses(running.exchange(*parts)) == [status]


def test_a_head_of_many_lines_below_the_limit_is_served(running: Running) -> None:
    assert statuses(running.exchange(get("/", *(b"x%d: 1" % number for number in range(1000))))) == [200]


@pytest.mark.parametrize("part", [b"\r\n" * 500_000, b"\r\n\r\n\r\n\r\n"])
def test_more_than_one_empty_line_before_a_request_is_refused(running: Running, part: bytes) -> None:
    assert statuses(running.exchange(part + get("/"))) == [400]


@pytest.mark.parametrize("parts", [[b"\r\n" + get("/")], [b"\r", b"\n" + get("/")], [b"\r\n", get("/")]])
def test_one_empty_line_before_a_request_is_ignored(running: Running, parts: list[bytes]) -> None:
    assert statuses(running.exchange(*parts)) == [200]


@pytest.mark.parametrize("data", [b"\x16\x03\x01\x02", b"\0", b"get / HTTP/1.1", b" GET /"])
def test_data_that_cannot_be_http_is_refused_before_a_head_is_complete(running: Running, data: bytes) -> None:
    assert statuses(running.exchange(data)) == [400]


@pytest.mark.parametrize("data", [b"GET / HTTP/1.0\n\n", b"GET / HTTP/1.1\nHost: x\n\n", START[:-2] + b"\n\n"])
def test_lines_that_end_in_lf_are_refused_before_the_deadline(running: Running, data: bytes) -> None:
    for packets in ([data], [data[:-1], data[-1:]]):
        answer = running.exchange(*packets)
        assert statuses(answer) == [400]
        assert answer.endswith(b"must end in CRLF, not in LF\n")


@pytest.mark.parametrize(
    "data", [b"1;" + b"a" * 300_000, b"0\r\nX: " + b"a" * 300_000, b"0\r\n" + b"a: b\r\n" * 50_000]
)
def test_chunk_headers_and_trailers_have_the_limit_of_a_head(running: Running, data: bytes) -> None:
    before = len(running.app.requests)
    head = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    assert statuses(running.exchange(head, data)) == [431]
    assert len(running.app.requests) == before


def test_a_client_that_sends_on_after_a_refusal_is_cut_off() -> None:
    with serve() as running, running.connect() as client:
        sent = 0
        client.send(HUGE["a complete head"])
        try:
            while sent < 50_000_000:
                client.sock.sendall(bytes(100_000))
                sent += 100_000
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert sent < 20_000_000
