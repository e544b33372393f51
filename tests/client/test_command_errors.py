"""Errors of commands: one line on stderr, exit code 2, no secret."""

from pathlib import Path

import pytest

from swissbrain import messages
from swissbrain.access import TOKEN as TOKEN_VARIABLE
from swissbrain.access import URL
from tests.client.conftest import Command
from tests.client.scripted_server import TOKEN, ScriptedServer, ok, page, problem, reply, reset, run
from tests.support.scripted_http import Answer


@pytest.mark.parametrize(
    "words",
    [
        ("nonsense",),
        ("show",),
        ("show", "a", "b"),
        ("show", ""),
        ("runs", "--limit", "0"),
        ("runs", "--limit", "x"),
        ("logs", "a", "--after", "-1"),
        ("logs", "a", "--what"),
        ("run", "x", "--metadata", "no pair"),
        ("run", "x", "--key", "with space"),
        ("run", "x", "--key", ""),
        ("run", "x", "--priority", "high"),
        ("run", "x", "--plan", "none.json"),
        ("run", "x", "--plan", "."),
        ("run", "x", "--plan", "bad.json"),
        ("run", "x", "--plan", "deep.json"),
        ("run", "x", "--plan", "nul.json"),
        ("run", "x", "--plan", "half.json"),
        ("run", "x", "--plan", "nan.json"),
        ("run", "x", "--plan", "infinity.json"),
        ("run", "x", "--plan", "huge.json"),
        ("run", "x", "--timeout", "nan"),
        ("run", "x", "--delay", "inf"),
        ("run", "x", "--queue-ttl", "1e400"),
        ("run", "x\udcff"),
        ("runs", "--status", "\udcff"),
        ("files", "a", "-o", "x"),
        ("files", "a", "b", "-o", "none/x"),
        ("files", "a", "b", "-o", "bad.json/x"),
        ("files", "a", ""),
        ("retry",),
        ("dev", "--port", "0"),
    ],
)
def test_bad_input_is_one_line(
    api: ScriptedServer, swissbrain: Command, tmp_path: Path, words: tuple[str, ...]
) -> None:
    (tmp_path / "bad.json").write_text("{\n\n}]")
    (tmp_path / "deep.json").write_text("[" * 100_000 + "]" * 100_000)
    (tmp_path / "nul.json").write_text('[{"args": {"$file": "a\\u0000b"}}]')
    (tmp_path / "half.json").write_text('[{"tool": "message", "args": {"text": "\\ud800"}}]')
    for name, number in (("nan", "NaN"), ("infinity", "-Infinity"), ("huge", "1e400")):
        (tmp_path / f"{name}.json").write_text(f'[{{"tool": "shell", "args": {{}}, "timeout_s": {number}}}]')
    api.always = reply(307, location="/")
    result = swissbrain(*words)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("swissbrain: ")
    assert result.err.count("\n") == 1
    assert all(request.method == "GET" for request in api.requests)


@pytest.mark.parametrize(
    "answer",
    [
        problem(422, "first\nsecond\r\n\x1b[31mthird\x07", field="$.x\n"),
        problem(403, "no"),
        page(401),
        page(),
        page(503),
        reset,
        reply(302, location="/login"),
        ok([]),
        ok({**run(), "status": 1}),
        reply(200, b"\xff"),
        reply(200, b"x", content_encoding="gzip"),
        reply(200, b'{"run_id": "\xff"}'),
        reply(400, b'{"detail": ' + b"[" * 100_000),
    ],
)
def test_errors_of_the_api_are_one_line(
    api: ScriptedServer, swissbrain: Command, pauses: list[float], answer: Answer
) -> None:
    api.always = answer
    for words in (("show", "a"), ("runs",), ("logs", "a"), ("logs", "a", "-f"), ("cancel", "a"), ("files", "a")):
        if words[-1] == "-f":
            api.then(*[answer] * 3, problem(400, "enough"))
        result = swissbrain(*words)
        assert (result.code, result.out) == (2, "")
        assert result.err.startswith("swissbrain: ")
        assert result.err.count("\n") == 1 or words[-1] == "-f"
        assert "\x1b" not in result.err
        assert TOKEN not in result.err


def test_the_address_of_the_api_comes_from_the_environment_or_the_current_folder(
    api: ScriptedServer, swissbrain: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.always = problem(418, "here")
    here, away = f"{URL}={api.url}\n{TOKEN_VARIABLE}=of-the-file==\nS3=x\n", f"{URL}=http://127.0.0.1:1\n"
    (tmp_path / ".swissbrain").mkdir()
    (tmp_path / ".swissbrain" / "dev.env").write_text(away)
    assert swissbrain("queue").err == "swissbrain: here\n"

    monkeypatch.delenv(TOKEN_VARIABLE)
    assert swissbrain("queue").err == f"swissbrain: {TOKEN_VARIABLE} is not set\n"

    monkeypatch.setenv(URL, "")
    monkeypatch.setenv(TOKEN_VARIABLE, "of another API")
    (tmp_path / ".swissbrain" / "dev.env").write_text(here)
    assert swissbrain("queue").err == "swissbrain: here\n"
    assert api.requests[-1].headers["authorization"] == "Bearer of-the-file=="

    (tmp_path / ".swissbrain" / "dev.env").write_bytes(b"\xff")
    assert "cannot read" in swissbrain("queue").err
    (tmp_path / ".swissbrain" / "dev.env").unlink()
    result = swissbrain("queue")
    assert result.code == 2
    assert f"{URL} is not set, and" in result.err


def test_an_unreachable_api_is_one_line(
    swissbrain: Command, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    monkeypatch.setenv(URL, "http://127.0.0.1:1")
    result = swissbrain("queue")
    assert result.code == 2
    assert result.err.startswith("swissbrain: cannot reach the API at http://127.0.0.1:1: ")
    assert result.err.endswith("Connection refused\n")
    assert len(pauses) == messages.ATTEMPTS - 1


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (reply(302, location="https://login.example/?secret=1"), "a redirect to https://login.example/; redirects"),
        (reply(200, b'{"status": "\xff"}'), "GET /health answers 200, but not as this API does"),
        (reply(500, b'{"title": ' + b"[" * 100_000), "GET /health answers 500, but not as this API does"),
        (reset, "cannot reach the API at http://127.0.0.1:"),
    ],
)
def test_doctor_says_what_is_wrong_with_the_address(
    api: ScriptedServer, swissbrain: Command, monkeypatch: pytest.MonkeyPatch, answer: Answer, found: str
) -> None:
    monkeypatch.setenv(URL, f"{api.url}//")
    api.always = answer
    result = swissbrain("doctor")
    assert (result.code, result.err) == (1, "")
    assert found in result.out.splitlines()[0]
    assert "secret" not in result.out
    assert api.targets == ["/health"]


def test_doctor_says_why_the_api_cannot_be_reached(swissbrain: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URL, "http://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://user:secret@127.0.0.1:2")
    monkeypatch.setenv("NO_PROXY", "")
    first = swissbrain("doctor").out.splitlines()[0]
    assert first.endswith(
        "cannot reach the API at http://127.0.0.1:1 through the proxy in HTTP_PROXY: [Errno 111] Connection refused"
    )
