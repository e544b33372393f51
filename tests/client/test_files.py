"""Files: downloaded completely or not at all, under unchanged names."""

import inspect
import io
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from swissbrain import ApiError, Client, ClientError, ProtocolError, Unreachable
from tests.client.scripted_server import (
    ScriptedServer,
    close_early,
    ok,
    page,
    partial,
    problem,
    reply,
    reset,
    run,
    scripted_server,
)
from tests.support.scripted_http import Answer


@pytest.fixture
def store(api: ScriptedServer) -> Iterator[ScriptedServer]:
    """Run an object store to which the API redirects every request."""
    with scripted_server() as made:
        api.always = reply(307, location=f"{made.url}/object")
        yield made


def test_files_are_listed(api: ScriptedServer, client: Client) -> None:
    api.then(ok({"files": [{"path": "ä/b", "size_bytes": 2**40, "modified_ms": 1, "href": "/x"}]}))
    (file,) = client.files("run_1")
    assert (file.path, file.size_bytes, file.modified_ms) == ("ä/b", 2**40, 1)


@pytest.mark.parametrize("content", [b"", b"\x00\xff" * 500_000], ids=["empty", "large"])
def test_a_file_is_saved_and_replaces_the_old_one(
    store: ScriptedServer, client: Client, tmp_path: Path, content: bytes
) -> None:
    store.always = reply(200, content, "application/octet-stream")
    to = tmp_path / ("n" * 250)
    for _ in range(2):
        client.save("run_1", "a", to)
        assert to.read_bytes() == content
        to.write_bytes(b"old")
    assert [*tmp_path.iterdir()] == [to]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (reset, Unreachable),
        (close_early, Unreachable),
        (partial(b"the beginning"), Unreachable),
        (page(403), ApiError),
        (page(503), Unreachable),
        (reply(302, b"moved", location="/other"), ProtocolError),
        (reply(206, b"a part"), ProtocolError),
        (reply(204), ProtocolError),
        (reply(200, b"no gzip", content_encoding="gzip"), Unreachable),
    ],
)
def test_an_incomplete_download_leaves_the_old_file(
    store: ScriptedServer,
    client: Client,
    pauses: list[float],
    tmp_path: Path,
    answer: Answer,
    error: type[Exception],
) -> None:
    store.always = answer
    old = tmp_path / "old"
    old.write_bytes(b"old")
    for to in (old, tmp_path / "new"):
        with pytest.raises(error):
            client.save("run_1", "a", to)
    assert old.read_bytes() == b"old"
    assert [*tmp_path.iterdir()] == [old]


def interrupted(content: bytes, sent: int) -> Answer:
    """Return an answer that breaks off after some bytes."""
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(content)}\r\n\r\n".encode()
    return lambda wire: wire.send(head + content[:sent])


def rest(content: bytes, start: int) -> Answer:
    return reply(206, content[start:], content_range=f"bytes {start}-{len(content) - 1}/{len(content)}")


def test_an_interrupted_download_continues_where_it_broke(
    api: ScriptedServer, store: ScriptedServer, client: Client, pauses: list[float], tmp_path: Path
) -> None:
    content = bytes(range(256)) * 4096
    half = 2 * 256 * 1024
    store.then(interrupted(content, 0), interrupted(content, half), reset, page(503), rest(content, half))
    api.then(*(reply(307, location=f"{store.url}/object?sig={n}") for n in range(5)))
    counts: list[int] = []
    client.save("run_1", "a", tmp_path / "a", on_bytes=counts.append)
    assert (tmp_path / "a").read_bytes() == content
    assert [request.headers.get("range") for request in store.requests] == [None, None, *["bytes=524288-"] * 3]
    assert store.targets == [f"/object?sig={n}" for n in range(5)]
    assert (counts, counts[-1]) == (sorted(counts), len(content))


@pytest.mark.parametrize(
    "answer",
    [
        reply(200, b"x" * 300_000),
        reply(206, b"x" * 300_000, content_range="bytes 0-299999/300000"),
        reply(206, b"x" * 300_000),
    ],
)
def test_another_part_than_the_missing_one_is_an_error(
    store: ScriptedServer, client: Client, pauses: list[float], answer: Answer
) -> None:
    store.then(interrupted(b"x" * 600_000, 300_000), answer)
    with pytest.raises(ProtocolError):
        client.read_bytes("run_1", "a")


def test_a_file_that_is_replaced_meanwhile_is_an_error(
    api: ScriptedServer, store: ScriptedServer, client: Client, pauses: list[float]
) -> None:
    store.then(interrupted(b"x" * 600_000, 300_000))
    api.then(reply(307, location=f"{store.url}/one"), reply(307, location=f"{store.url}/other"))
    with pytest.raises(ClientError, match=r"^'a' was replaced while it was fetched$"):
        client.read_bytes("run_1", "a")


def test_a_download_that_makes_no_progress_ends(store: ScriptedServer, client: Client, pauses: list[float]) -> None:
    store.always = interrupted(b"x" * 10, 0)
    with pytest.raises(Unreachable):
        client.read_bytes("run_1", "a")
    assert len(store.requests) == 5


def test_more_of_a_file_than_allowed_is_not_read_into_memory(store: ScriptedServer, client: Client) -> None:
    store.always = reply(200, b"x" * 1_000_000)
    assert len(client.read_bytes("run_1", "a", max_bytes=1_000_000)) == 1_000_000
    for read in (client.read_bytes, client.read_text):
        with pytest.raises(ClientError, match=r"^'a' has more than 999,999 bytes; save\(\) writes it to a file, "):
            read("run_1", "a", max_bytes=999_999)
    assert inspect.signature(Client.read_text).parameters["max_bytes"].default == 64 * 1024 * 1024


def test_a_file_is_read_as_bytes_and_as_text(store: ScriptedServer, client: Client) -> None:
    store.always = reply(200, "é\r\n".encode())
    assert client.read_bytes("run_1", "a") == "é\r\n".encode()
    assert client.read_text("run_1", "a") == "é\r\n"
    store.always = reply(200, b"\xe9")
    assert client.read_text("run_1", "a", encoding="latin-1") == "é"
    with pytest.raises(UnicodeDecodeError):
        client.read_text("run_1", "a")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (problem(404, "none"), ApiError),
        (page(), ProtocolError),
        (reply(204), ProtocolError),
        (reply(307), ProtocolError),
        (reply(307, location="http://[::1"), ClientError),
        (reply(307, location="file:///etc/passwd"), ClientError),
        (reply(307, location="http://127.0.0.1:1/"), Unreachable),
    ],
)
def test_a_download_without_a_usable_redirect_is_an_error(
    api: ScriptedServer, client: Client, pauses: list[float], tmp_path: Path, answer: Answer, error: type[Exception]
) -> None:
    api.always = answer
    with pytest.raises(error) as caught:
        client.save("run_1", "a", tmp_path / "a")
    assert "\n" not in str(caught.value)
    assert [*tmp_path.iterdir()] == []


def test_a_signal_while_a_file_is_begun_leaves_no_part(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = Path.open

    def interrupted(path: Path, mode: str) -> None:
        begin(path, mode).close()
        raise InterruptedError

    monkeypatch.setattr(Path, "open", interrupted)
    with pytest.raises(InterruptedError):
        client.save("run_1", "a", tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_target_raises_oserror(store: ScriptedServer, client: Client, tmp_path: Path) -> None:
    store.always = reply(200, b"x")
    (tmp_path / "folder").mkdir()
    for to in (tmp_path / "none" / "a", tmp_path / "folder", tmp_path / "folder" / "..", Path(), Path("/")):
        with pytest.raises(OSError):
            client.save("run_1", "a", to)
    assert [*tmp_path.rglob("*")] == [tmp_path / "folder"]


def test_a_pipe_is_written_to_and_not_replaced(store: ScriptedServer, client: Client, tmp_path: Path) -> None:
    store.always = reply(200, b"content")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        client.save("run_1", "a", pipe)
        assert os.read(reader, 100) == b"content"
    finally:
        os.close(reader)
    assert pipe.is_fifo()


def test_a_link_is_replaced_and_not_followed(store: ScriptedServer, client: Client, tmp_path: Path) -> None:
    store.always = reply(200, b"new")
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to(target)
    client.save("run_1", "a", link)
    assert (target.read_bytes(), link.read_bytes(), link.is_symlink()) == (b"old", b"new", False)


@pytest.mark.parametrize(
    ("name", "quoted"),
    [
        ("..", "%2E%2E"),
        (".", "%2E"),
        ("a/../b", "a%2F..%2Fb"),
        ("a?b=c#d", "a%3Fb%3Dc%23d"),
        ("a b\t\n", "a%20b%09%0A"),
        ("é😀", "%C3%A9%F0%9F%98%80"),
        ("%2e%2e", "%252e%252e"),
        ("//evil.example", "%2F%2Fevil.example"),
        ("http://evil.example", "http%3A%2F%2Fevil.example"),
        ("\udcff", "%ED%B3%BF"),
    ],
)
def test_no_run_id_changes_the_endpoint(api: ScriptedServer, client: Client, name: str, quoted: str) -> None:
    api.always = ok(run())
    client.get_run(name)
    for ask in (
        lambda: client.cancel(name),
        lambda: client.delete(name),
        lambda: client.files(name),
        lambda: [*client.logged(name)],
        lambda: [*client.events(name)],
        lambda: client.download(name, "x", io.BytesIO()),
    ):
        with suppress(ProtocolError):
            ask()
    base, log = f"/agent/runs/{quoted}", f"/agent/logs/{quoted}"
    ends = ["", "/cancel", "", "/files"]
    assert api.targets == [
        *(base + end for end in ends),
        f"{log}?after=0&limit=1000",
        f"{log}/stream",
        f"{base}/files/x",
    ]


@pytest.mark.parametrize(
    ("path", "quoted"),
    [
        ("..", "%2E%2E"),
        ("../../other/files/x", "%2E%2E/%2E%2E/other/files/x"),
        ("a/./b/..", "a/%2E/b/%2E%2E"),
        ("a..b/...", "a..b/..."),
        ("/etc/passwd", "/etc/passwd"),
        ("a//b/", "a//b/"),
        ("a?b#c d;e&f=g%2f\\h", "a%3Fb%23c%20d%3Be%26f%3Dg%252f%5Ch"),
        ("é/😀", "%C3%A9/%F0%9F%98%80"),
    ],
)
def test_a_file_path_reaches_the_api_unchanged(api: ScriptedServer, client: Client, path: str, quoted: str) -> None:
    api.always = problem(422, "refused")
    with pytest.raises(ApiError, match=r"^refused$"):
        client.download("run_1", path, io.BytesIO())
    assert api.targets == [f"/agent/runs/run_1/files/{quoted}"]


def test_an_empty_name_is_rejected_without_a_request(api: ScriptedServer, client: Client) -> None:
    for ask in (
        lambda: client.get_run(""),
        lambda: client.delete(""),
        lambda: [*client.logged("")],
        lambda: [*client.events("")],
        lambda: client.files(""),
        lambda: client.download("run_1", "", io.BytesIO()),
    ):
        with pytest.raises(ClientError, match=r"^the name of a run or file is empty$"):
            ask()
    assert api.requests == []
