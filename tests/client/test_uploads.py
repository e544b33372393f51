"""Uploads: announced, sent to the object store without the token, and repeated safely."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from swissbrain import ApiError, Client, ClientError, ProtocolError, Unreachable
from tests.client.scripted_server import (
    TOKEN,
    ScriptedServer,
    close_early,
    ok,
    page,
    problem,
    reply,
    reset,
    scripted_server,
)
from tests.support.scripted_http import Answer


@pytest.fixture
def store(api: ScriptedServer) -> Iterator[ScriptedServer]:
    """Run an object store to which the API sends every upload."""
    with scripted_server() as made:
        made.always = reply(200)
        api.always = announced(made)
        yield made


def announced(store: ScriptedServer, **headers: str) -> Answer:
    target = {"method": "PUT", "url": f"{store.url}/key?sig=1", "headers": headers, "expires_ms": 1}
    return ok({"path": "a.csv", "size_bytes": 1, "sha256": "x", "upload": target})


@pytest.mark.parametrize("content", [b"", b"x", b"\0\xff" * 300_000], ids=["empty", "one byte", "several parts"])
@pytest.mark.parametrize("from_disk", [True, False])
def test_a_file_is_announced_and_sent(
    api: ScriptedServer, store: ScriptedServer, client: Client, tmp_path: Path, content: bytes, from_disk: bool
) -> None:
    size = str(len(content))
    api.always = announced(
        store, **{"content-length": size, "x-amz-checksum-sha256": "c2hh", "content-type": "text/csv"}
    )
    (tmp_path / "a").write_bytes(content)
    counts: list[int] = []
    source = tmp_path / "a" if from_disk else content
    assert client.upload("run_1", "data/ä.csv", source, on_bytes=counts.append).path == "a.csv"
    (asked,), (sent,) = api.requests, store.requests
    assert (asked.method, asked.target) == ("PUT", "/agent/runs/run_1/files/data/%C3%A4.csv")
    digests = {name: hashlib.new(name, content, usedforsecurity=False).hexdigest() for name in ("sha256", "md5")}
    assert asked.json == {"size_bytes": len(content), **digests}
    assert (sent.method, sent.target, sent.body) == ("PUT", "/key?sig=1", content)
    assert sent.headers["content-length"] == size
    assert "transfer-encoding" not in sent.headers
    assert (sent.headers["x-amz-checksum-sha256"], sent.headers["content-type"]) == ("c2hh", "text/csv")
    assert TOKEN not in str(sent)
    assert counts == sorted(counts)
    assert counts[-1:] == ([len(content)] if content else [])


@pytest.mark.parametrize("away", [reset, close_early, reply(500), page(503), reply(503, "<Code>SlowDown</Code>")])
def test_an_interrupted_upload_is_announced_and_sent_again(
    api: ScriptedServer, store: ScriptedServer, client: Client, pauses: list[float], away: Answer
) -> None:
    store.then(away, away)
    client.upload("run_1", "a", b"x" * 400_000)
    assert [len(request.body) for request in store.requests] == [400_000] * 3
    assert [request.json for request in api.requests] == [api.requests[0].json] * 3
    assert len(pauses) == 2


def test_an_absent_store_is_reported_after_all_tries(
    api: ScriptedServer, store: ScriptedServer, client: Client, pauses: list[float]
) -> None:
    store.always = reset
    with pytest.raises(Unreachable, match=r"^cannot send 'a' to 127.0.0.1: "):
        client.upload("run_1", "a", b"x")
    assert len(store.requests) == 5


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (reply(400, "<Error><Code>BadDigest</Code></Error>"), ApiError, r"'a': BadDigest, so it was changed while"),
        (reply(403, "no XML"), ApiError, r"^the object store refused 'a'$"),
        (reply(204), ProtocolError, "HTTP status 204"),
        (reply(307, location="http://elsewhere"), ProtocolError, "HTTP status 307"),
    ],
)
def test_a_refusal_of_the_store_is_final(
    store: ScriptedServer, client: Client, answer: Answer, error: type[Exception], message: str
) -> None:
    store.always = answer
    with pytest.raises(error, match=message):
        client.upload("run_1", "a", b"x")
    assert len(store.requests) == 1


@pytest.mark.parametrize("answer", [ok({"path": "a"}), ok({"path": "a", "upload": None}), page(), reply(204)])
def test_an_answer_without_an_address_is_a_protocol_error(api: ScriptedServer, client: Client, answer: Answer) -> None:
    api.always = answer
    with pytest.raises(ProtocolError):
        client.upload("run_1", "a", b"x")


@pytest.mark.parametrize("url", ["file:///etc/passwd", "http://[::1", "nonsense", ""])
def test_an_unusable_address_is_an_error(api: ScriptedServer, client: Client, url: str) -> None:
    target = {"method": "PUT", "url": url, "headers": {}, "expires_ms": 1}
    api.always = ok({"path": "a", "upload": target})
    with pytest.raises(ClientError):
        client.upload("run_1", "a", b"x")


def test_a_file_that_shrinks_meanwhile_is_an_error(
    api: ScriptedServer, store: ScriptedServer, client: Client, tmp_path: Path
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 1_000_000)
    answer = announced(store)

    def shrink(wire: Any) -> None:
        path.write_bytes(b"")
        answer(wire)

    api.always = shrink
    with pytest.raises(ClientError, match="shorter"):
        client.upload("run_1", "a", path)


def test_missing_files_raise_oserror_without_a_request(api: ScriptedServer, client: Client, tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(OSError):
            client.upload("run_1", "a", path)
    assert api.requests == []


def test_a_file_of_another_run_is_named_and_not_sent(api: ScriptedServer, client: Client) -> None:
    api.always = ok({"path": "b", "from_run": "run_2", "source_path": "a", "upload": None})
    assert client.copy_file("run_1", "b", from_run="run_2", source="a").source_path == "a"
    client.copy_file("run_1", "b", from_run="run_2")
    assert [request.json["path"] for request in api.requests] == ["a", "b"]
    assert api.requests[0].json == {"from_run": "run_2", "path": "a"}


def test_a_start_names_the_missing_files(api: ScriptedServer, client: Client) -> None:
    api.always = ok({"type": "x", "title": "t", "status": 409, "detail": "not all", "missing": ["a", "b"]}, 409)
    with pytest.raises(ApiError) as caught:
        client.start("run_1")
    assert caught.value.missing == ["a", "b"]
    api.always = problem(409, "other")
    with pytest.raises(ApiError) as caught:
        client.start("run_1")
    assert caught.value.missing == []


def test_the_address_of_a_file_is_asked_for_as_json(api: ScriptedServer, client: Client) -> None:
    api.always = ok({"url": "http://store/a?sig=secret", "expires_ms": 1, "content_type": "text/csv", "size_bytes": 2})
    link = client.file_link("run_1", "a.csv")
    client.file_link("run_1", "a.csv", inline=True)
    assert (link.url, link.size_bytes) == ("http://store/a?sig=secret", 2)
    assert "secret" not in repr(link)
    assert [request.headers["accept"] for request in api.requests] == ["application/json"] * 2
    assert api.targets == ["/agent/runs/run_1/files/a.csv", "/agent/runs/run_1/files/a.csv?disposition=inline"]
