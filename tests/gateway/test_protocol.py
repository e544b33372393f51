"""Requests and responses of single commands, over plain HTTP."""

from __future__ import annotations

import gzip
import json
import socket

import httpx
import pytest

from tests.gateway.support import TOKEN, Served, Valkey, serve


def result(response: httpx.Response) -> object:
    """Return the result of a response that must have one."""
    assert response.status_code == 200, response.text
    body = response.json()
    assert list(body) == ["result"]
    return body["result"]


def error(response: httpx.Response, status: int = 400) -> str:
    """Return the text of a response that must be an error."""
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert list(body) == ["error"]
    return str(body["error"])


def test_a_command_may_be_sent_as_a_json_array(http: httpx.Client) -> None:
    assert result(http.post("/", json=["SET", "k", "v", "EX", 100])) == "OK"
    assert result(http.post("/", json=["GET", "k"])) == "v"
    assert result(http.put("/", json=["get", "k"])) == "v"


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("12", "12"),
        ("1.10", "1.10"),
        ("-0.5", "-0.5"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("true", "true"),
        ("null", "null"),
        ('{"a": [1, 2.50, "ü"]}', '{"a":[1,2.50,"ü"]}'),
        ('""', ""),
        ('"\\u0000\\ud83d\\ude00"', "\0😀"),
    ],
)
def test_arguments_that_are_not_strings_become_their_json_text(http: httpx.Client, sent: str, stored: str) -> None:
    result(http.post("/", content=f'["SET", "k", {sent}]'))
    assert result(http.post("/", json=["GET", "k"])) == stored


@pytest.mark.parametrize(
    "body",
    ["", "{", "[", "[]", "{}", '"GET"', "12", "[1, 2]", '[["GET","k"]]', '[""]', "[null]", "[NaN]", '["GET","\\ud8"]',
     b'["GET","\xff]', '["GET","\\', '["GET","\\ud800', "[" * 100_000],
)  # fmt: skip
def test_a_malformed_command_is_rejected(http: httpx.Client, body: str | bytes) -> None:
    assert error(http.post("/", content=body)).startswith("ERR ")


def test_results_have_the_shapes_of_resp2(http: httpx.Client) -> None:
    result(http.post("/", json=["HSET", "h", "a", 1, "b", "x"]))
    assert result(http.get("/hgetall/h")) == ["a", "1", "b", "x"]
    assert result(http.get("/get/nothing")) is None
    assert result(http.get("/lrange/nothing/0/-1")) == []
    assert result(http.get("/incrby/n/9007199254740993")) == 9007199254740993
    assert result(http.get("/mget/h2/n")) == [None, "9007199254740993"]
    result(http.get("/zadd/z/1.5/m"))
    assert result(http.get("/zrange/z/0/-1/WITHSCORES")) == ["m", "1.5"]
    assert result(http.post("/", json=["EVAL", "return {1,{'a',false},redis.error_reply('ERR x')}", 0])) == [
        1,
        ["a", None],
        "ERR x",
    ]


def test_errors_of_redis_keep_their_exact_text(http: httpx.Client) -> None:
    assert error(http.get("/get")) == "ERR wrong number of arguments for 'get' command"
    result(http.get("/set/s/x"))
    assert error(http.get("/incr/s")) == "ERR value is not an integer or out of range"
    assert error(http.get("/lpush/s/1")).startswith("WRONGTYPE Operation against a key")
    assert error(http.get("/evalsha/0000000000000000000000000000000000000000/0")).startswith("NOSCRIPT ")
    assert error(http.get("/json.get/k")).startswith("ERR unknown command 'json.get'")
    assert error(http.post("/", json=["EVAL", "return redis.error_reply('MINE own words')", 0])) == "MINE own words"


def test_the_path_form_decodes_each_segment(http: httpx.Client, valkey: Valkey) -> None:
    assert result(http.get("/set/a%2Fb%20c+d/%0A%00%FF")) == "OK"
    with valkey.client() as client:
        assert client.get("a/b c+d") == b"\n\0\xff"
    assert result(http.get("/set/empty/")) == "OK"
    assert result(http.get("/get/empty")) == ""
    assert result(http.get(httpx.URL(http.base_url, raw_path=b"//get/empty"))) == ""


def test_the_body_comes_after_the_path_and_before_the_query(http: httpx.Client, valkey: Valkey) -> None:
    value = bytes(range(256)) * 300
    assert result(http.post("/set/bin?EX=100&NX", content=value)) == "OK"
    with valkey.client() as client:
        assert client.get("bin") == value
        assert 0 < client.ttl("bin") <= 100
    assert result(http.put("/set/bin?NX", content=b"x")) is None
    assert result(http.get("/echo?a%20b+c")) == "a b c"


def test_a_body_sent_with_get_is_ignored(http: httpx.Client) -> None:
    assert result(http.request("GET", "/echo/hello", content=b"ignored")) == "hello"


def test_head_runs_the_command_and_responds_without_a_body(http: httpx.Client) -> None:
    response = http.head("/incr/visits")
    assert (response.status_code, response.content) == (200, b"")
    assert result(http.get("/get/visits")) == "1"
    assert http.head("/incr").status_code == 400


def test_a_chunked_body_is_joined(http: httpx.Client) -> None:
    assert result(http.post("/", content=iter([b'["ECHO",', b'"hel', b'lo"]']))) == "hello"


@pytest.mark.parametrize("method", ["DELETE", "PATCH", "OPTIONS"])
def test_other_methods_are_not_allowed(http: httpx.Client, method: str) -> None:
    response = http.request(method, "/get/k")
    error(response, 405)
    assert response.headers["allow"] == "HEAD, GET, POST, PUT"


def test_a_get_request_without_a_path_is_rejected(http: httpx.Client) -> None:
    assert error(http.get("/")) == "ERR the path names no command"


def test_resp2_responses_are_the_bytes_of_redis(http: httpx.Client) -> None:
    headers = {"Upstash-Response-Format": "resp2"}

    def raw(path: str) -> tuple[int, bytes]:
        response = http.get(path, headers=headers)
        assert response.headers["content-type"] == "application/octet-stream"
        return response.status_code, response.content

    assert raw("/set/k/OK") == (200, b"+OK\r\n")
    assert raw("/get/k") == (200, b"$2\r\nOK\r\n")
    assert raw("/mget/k/none") == (200, b"*2\r\n$2\r\nOK\r\n$-1\r\n")
    assert raw("/dbsize") == (200, b":1\r\n")
    assert raw("/lrange/none/0/-1") == (200, b"*0\r\n")
    assert raw("/incr/k") == (400, b"-ERR value is not an integer or out of range\r\n")
    assert raw("/blpop/k/0")[1].startswith(b"-ERR Command is not available: 'BLPOP'")
    assert result(http.get("/get/k", headers={"Upstash-Response-Format": "json"})) == "OK"
    assert "must be json or resp2" in error(http.get("/get/k", headers={"Upstash-Response-Format": "xml"}))
    assert "cannot be combined" in error(http.get("/get/k", headers=headers | {"Upstash-Encoding": "base64"}))


def test_resp2_responses_may_be_large_and_binary(http: httpx.Client) -> None:
    value = bytes(range(256)) * 4000
    result(http.post("/set/big", content=value))
    response = http.get("/get/big", headers={"Upstash-Response-Format": "resp2"})
    assert response.content == b"$%d\r\n%b\r\n" % (len(value), value)


def test_the_sync_token_differs_in_every_response(http: httpx.Client) -> None:
    paths = ["/ping", "/ping", "/get", "/blpop/a/1"]
    tokens = [http.get(path).headers["upstash-sync-token"] for path in paths]
    assert len(set(tokens)) == len(tokens)


@pytest.mark.parametrize(
    "authorization", ["Bearer wrong", "Bearer", "", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", "Bearer ü"]
)
def test_a_wrong_token_is_rejected(served: Served, authorization: str) -> None:
    headers = {"Authorization": authorization.encode()}
    response = httpx.post(served.url, json=["FLUSHALL"], headers=headers, trust_env=False)  # type: ignore[arg-type]
    assert error(response, 401) == "WRONGPASS invalid or missing auth token"


def test_a_missing_token_is_rejected_before_the_body_is_read(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.port)) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
        assert sock.recv(1000).startswith(b"HTTP/1.1 401 ")


def test_the_token_may_be_a_query_parameter(served: Served, valkey: Valkey) -> None:
    with httpx.Client(base_url=served.url, trust_env=False) as client:
        assert result(client.get(f"/set/k/v?_token={TOKEN}&EX=50")) == "OK"
        assert error(client.get("/get/k?_token=wrong"), 401).startswith("WRONGPASS")
        wrong = {"Authorization": "Bearer wrong"}
        assert error(client.get(f"/get/k?_token={TOKEN}", headers=wrong), 401).startswith("WRONGPASS")
        assert result(client.get(f"/get/k?_token={TOKEN}")) == "v"


def test_a_compressed_body_is_named_as_such(http: httpx.Client) -> None:
    for path in ("/", "/set/k", "/pipeline"):
        answer = http.post(path, content=gzip.compress(b'["SET", "k", "v"]'), headers={"Content-Encoding": "gzip"})
        assert "Content-Encoding" in error(answer, 415)
    assert result(http.post("/", content=b'["PING"]', headers={"Content-Encoding": "identity"})) == "PONG"
    assert result(http.get("/get/k")) is None


def test_a_body_over_the_limit_is_rejected(valkey: Valkey) -> None:
    with serve(valkey.url, max_request_bytes=1000) as served, served.client() as client:
        assert result(client.post("/set/k", content=b"x" * 1000)) == "OK"
        assert "1000 bytes" in error(client.post("/set/k", content=b"x" * 1001), 413)
        assert "1000 bytes" in error(client.post("/set/k", content=iter([b"x" * 600] * 2)), 413)
        assert result(client.get("/strlen/k")) == 1000


def test_a_declared_size_far_over_the_limit_is_rejected_before_the_body(served: Served) -> None:
    head = f"POST / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {1 << 40}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", served.port)) as sock:
        sock.sendall(head.encode())
        assert sock.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_a_value_of_ten_megabytes_is_stored(http: httpx.Client) -> None:
    value = b"v" * (10 * 1024 * 1024)
    assert result(http.post("/set/big", content=value)) == "OK"
    assert result(http.get("/strlen/big")) == len(value)
    assert len(http.get("/get/big").content) > len(value)
    for _ in range(3):
        assert error(http.post("/set/big", content=value + b"v"), 413).startswith("ERR max request size exceeded")


def test_an_incomplete_request_does_not_run(served: Served, http: httpx.Client) -> None:
    body = json.dumps(["SET", "incomplete", "x"]).encode()
    head = f"POST / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {len(body) + 9}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", served.port)) as sock:
        sock.sendall(head.encode() + body)
    assert result(http.get("/exists/incomplete")) == 0


def test_a_client_that_disconnects_before_the_response_does_not_affect_others(
    served: Served, http: httpx.Client
) -> None:
    for number in range(20):
        with socket.create_connection(("127.0.0.1", served.port)) as sock:
            sock.sendall(
                f"GET /set/disconnected/{number} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
            )
        assert result(http.get(f"/echo/{number}")) == str(number)
