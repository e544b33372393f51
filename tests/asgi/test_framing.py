"""Where a request ends, and what follows it."""

from collections.abc import Iterator

import pytest

from tests.asgi.support import HOST, Running, get, post, serve, statuses

INNER = b"GET /inner HTTP/1.1\r\n" + HOST + b"\r\n"
UPGRADE = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAEAAEAAAAIAAAAA")
WEBSOCKET = (b"Connection: Upgrade", b"UPGRADE: websocket", b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")


@pytest.fixture
def running() -> Iterator[Running]:
    with serve() as server:
        yield server


def chunked(path: str, *chunks: bytes, headers: bytes = b"", trailers: bytes = b"") -> bytes:
    """Return a request in chunks."""
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    head = b"POST %s HTTP/1.1\r\n%s%sTransfer-Encoding: chunked\r\n\r\n" % (path.encode(), HOST, headers)
    return head + body + b"0\r\n" + trailers + b"\r\n"


def paths(running: Running) -> list[str]:
    return [seen.path for seen in running.app.requests]


@pytest.mark.parametrize("headers", [UPGRADE, WEBSOCKET])
@pytest.mark.parametrize("split", [True, False])
def test_a_request_with_upgrade_keeps_its_body(running: Running, headers: tuple[bytes, ...], split: bool) -> None:
    head = post("/", INNER, *headers, close=False)[: -len(INNER)]
    after = get("/after")
    answer = running.exchange(*((head, INNER, after) if split else (head + INNER + after,)))
    assert statuses(answer) == [200, 200]
    assert [(seen.path, seen.body) for seen in running.app.requests] == [("/", INNER), ("/after", b"")]


def test_a_chunked_request_with_upgrade_keeps_its_body(running: Running) -> None:
    headers = b"".join(line + b"\r\n" for line in UPGRADE)
    assert statuses(running.exchange(chunked("/", b"abc", INNER, headers=headers))) == [200]
    assert [seen.body for seen in running.app.requests] == [b"abc" + INNER]


def test_connect_is_refused(running: Running) -> None:
    assert statuses(running.exchange(b"CONNECT x:80 HTTP/1.1\r\n" + HOST + b"\r\n" + INNER)) == [400]
    assert paths(running) == []


def test_the_preface_of_http_2_is_refused(running: Running) -> None:
    assert statuses(running.exchange(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")) == [505]


@pytest.mark.parametrize("path", ["/stream", "/sized"])
@pytest.mark.parametrize("headers", [b"", b"Connection: keep-alive\r\n"])
def test_http_1_0_gets_no_chunks(running: Running, path: str, headers: bytes) -> None:
    head, _, body = running.exchange(b"GET %s HTTP/1.0\r\n%s\r\n" % (path.encode(), headers)).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert b"connection: close" in head
    assert body == (b"one\ntwo\n" if path == "/stream" else b"/sized")


def test_http_1_1_gets_chunks(running: Running) -> None:
    assert running.exchange(get("/stream")).endswith(b"4\r\none\n\r\n4\r\ntwo\n\r\n0\r\n\r\n")


def test_white_space_around_a_value_does_not_count(running: Running) -> None:
    assert statuses(running.exchange(post("/", b"abc", b"A: \t x y \t ", b"B:z\t"))) == [200]
    headers = running.app.requests[0].headers
    assert (b"a", b"x y") in headers
    assert (b"b", b"z") in headers


@pytest.mark.parametrize(
    "request_",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + INNER,
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + INNER,
        b"Transfer-Encoding: identity\r\nContent-Length: 0\r\n\r\n" + INNER,
        b"Transfer-Encoding: identity\r\n\r\n" + INNER,
        b"Transfer-Encoding: chunked, gzip\r\n\r\n" + INNER,
        b"Transfer-Encoding: xchunked\r\n\r\n" + INNER,
        b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + INNER,
        b"Content-Length: 0\r\nContent-Length: %d\r\n\r\n" % len(INNER) + INNER,
        b"Content-Length: +0\r\n\r\n" + INNER,
        b"Content-Length: 0x0\r\n\r\n" + INNER,
        b"Content-Length: %s\r\n\r\n" % (b"9" * 5000) + INNER,
        b"Content-Length: -1\r\n\r\n" + INNER,
        b"Content-Length:\r\n\r\n" + INNER,
        b"Upgrade : h2c\r\nConnection: Upgrade\r\n\r\n" + INNER,
        b"Transfer-Encoding: chunked\r\n\r\n0\r\nbad trailer\r\n\r\n" + INNER,
        b"Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n" + INNER,
        b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n" + INNER,
    ],
)
def test_a_body_of_ambiguous_length_hides_no_request(running: Running, request_: bytes) -> None:
    answer = running.exchange(b"POST / HTTP/1.1\r\n" + HOST + request_)
    assert statuses(answer) == [400]
    assert "/inner" not in paths(running)


def test_nothing_follows_a_chunked_request(running: Running) -> None:
    for packets in ([chunked("/", b"abc") + INNER], [chunked("/", b"abc"), INNER]):
        answer = running.exchange(*packets)
        assert statuses(answer) == [200]
        assert b"connection: close" in answer
    assert paths(running) == ["/", "/"]


def test_trailers_are_not_headers(running: Running) -> None:
    request = chunked("/", b"abc", trailers=b"Authorization: x\r\nExpect: 100-continue\r\n")
    assert statuses(running.exchange(request)) == [200]
    assert {b"authorization", b"expect"} & {name for name, _ in running.app.requests[0].headers} == set()


@pytest.mark.parametrize("split", [1, 7, 10_000])
def test_pipelined_requests_are_answered_in_order_and_one_at_a_time(running: Running, split: int) -> None:
    last = 40
    data = b"".join(get(f"/{number}", close=False) for number in range(last)) + post("/last", b"abc")
    answer = running.exchange(*(data[start : start + split] for start in range(0, len(data), split)))
    assert statuses(answer) == [200] * (last + 1)
    assert paths(running) == [f"/{number}" for number in range(last)] + ["/last"]
    assert running.app.most_running == 1


def test_a_refused_request_does_not_overtake_the_answer_to_an_earlier_one(running: Running) -> None:
    with running.connect() as client:
        client.send(get("/wait", close=False) + b"nonsense\r\n\r\n")
        running.app.release.set()
        assert statuses(client.read_to_end()) == [200, 400]


def test_expect_is_answered_with_100(running: Running) -> None:
    request = post("/", b"abc", b"Expect: 100-continue ")
    with running.connect() as client:
        client.send(request[:-3])
        assert statuses(client.read_until(b"\r\n\r\n")) == [100]
        client.send(b"abc")
        assert statuses(client.read_to_end()) == [200]


def test_http_1_0_gets_no_100(running: Running) -> None:
    request = post("/", b"abc", b"Expect: 100-continue").replace(b"HTTP/1.1", b"HTTP/1.0")
    assert statuses(running.exchange(request)) == [200]


def test_after_an_early_answer_to_expect_no_request_is_taken_for_the_body(running: Running) -> None:
    head = post("/early", INNER, b"Expect: 100-continue", close=False)[: -len(INNER)]
    answer = running.exchange(head)
    assert statuses(answer) == [200]
    assert b"connection: close" in answer


def test_a_transfer_coding_other_than_chunked_is_named(running: Running) -> None:
    answer = running.exchange(chunked("/", b"abc").replace(b": chunked", b": gzip, chunked"))
    assert statuses(answer) == [400]
    assert answer.endswith(b"the Transfer-Encoding must be 'chunked'; no other coding is served\n")


def test_characters_outside_of_ascii_in_a_target_are_as_if_encoded(running: Running) -> None:
    request = get("/x/?").replace(b"/x/?", "/中/?ä".encode() + b"\xff")
    assert statuses(running.exchange(request)) == [200]
    assert paths(running) == ["/%E4%B8%AD/"]


def test_a_large_body_arrives_whole(running: Running) -> None:
    body = bytes(range(256)) * 20_000
    assert statuses(running.exchange(post("/", body), b"")) == [200]
    assert running.app.requests[0].body == body


def test_a_request_after_an_early_answer_is_served(running: Running) -> None:
    assert statuses(running.exchange(post("/early", INNER * 5000, close=False), get("/next"))) == [200, 200]
    assert paths(running) == ["/next"]
