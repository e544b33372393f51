"""Commands that create, resume and show runs: their requests, and what they leave behind when something fails."""

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.client.conftest import Command
from tests.client.scripted_server import ScriptedServer, ok, problem, reply, run, scripted_server, state
from tests.support.scripted_http import Answer

EVENTS = {"events": [], "last_seq": 0, "next_after": 0, "done": True}


@pytest.fixture
def store() -> Iterator[ScriptedServer]:
    with scripted_server() as server:
        server.always = reply(200)
        yield server


def announced(store: ScriptedServer) -> Answer:
    upload = {"method": "PUT", "url": f"{store.url}/key", "headers": {"x-check": "1"}, "expires_ms": 1}
    return ok({"path": "p", "size_bytes": 1, "sha256": "0" * 64, "upload": upload})


def test_steps_keep_the_order_of_the_command_line(api: ScriptedServer, swissbrain: Command, tmp_path: Path) -> None:
    for name in ("a.py", "b.js", "c.sh", "d.mjs"):
        (tmp_path / name).write_text(f"text of {name}")
    (tmp_path / "plan.yaml").write_text("- {tool: message, args: {text: first}}")
    api.always = ok(run(), 201)
    words = ("--shell", "one", "--code", "a.py", "--code=b.js", "--shell=two", "--plan", "plan.yaml", "--code", "c.sh")
    assert swissbrain("run", *words, "--timeout", "5m", "--delay", "1h30m", "--queue-ttl", "2d").code == 0
    body = api.requests[0].json
    assert [step["args"] for step in body["plan"]] == [
        {"text": "first"},
        {"command": "one"},
        {"language": "python", "source": "text of a.py"},
        {"language": "node", "source": "text of b.js"},
        {"command": "two"},
        {"language": "bash", "source": "text of c.sh"},
    ]
    assert [step.get("name") for step in body["plan"]] == [None, "one", "a.py", "b.js", "two", "c.sh"]
    assert (body["timeout_s"], body["delay_s"], body["queue_ttl_s"]) == (300, 5400, 172_800)


def test_steps_of_one_command_have_the_same_network(api: ScriptedServer, swissbrain: Command, tmp_path: Path) -> None:
    api.always = ok(run(), 201)
    (tmp_path / "a.py").write_text("a")
    words = ("--shell", "true", "--code", "a.py", "--network", "pypi.org:443", "--network", "*.a.test:80")
    assert swissbrain("run", *words).code == 0
    assert [step["args"]["network"] for step in api.requests[-1].json["plan"]] == [["pypi.org:443", "*.a.test:80"]] * 2
    refused = swissbrain("run", "do it", "--network", "pypi.org:443")
    assert (refused.code, refused.err) == (2, "swissbrain: --network: it needs a step of --shell or --code\n")


def test_files_are_sent_before_the_run_starts(
    api: ScriptedServer, store: ScriptedServer, swissbrain: Command, tmp_path: Path
) -> None:
    (tmp_path / "data.csv").write_bytes(b"x" * 2_000_000)
    (tmp_path / "empty").touch()
    api.then(ok(run(status="created"), 201), announced(store), announced(store), ok(state()))
    result = swissbrain("run", "--shell", "true", "--file", "data.csv=in/t.csv", "--file", "empty")
    assert result == (0, "run_1\n", "")
    assert api.requests[0].json["start"] is False
    assert [(request.method, request.target) for request in api.requests[1:]] == [
        ("PUT", "/agent/runs/run_1/files/in/t.csv"),
        ("PUT", "/agent/runs/run_1/files/empty"),
        ("POST", "/agent/runs/run_1/start"),
    ]
    assert [len(request.body) for request in store.requests] == [2_000_000, 0]
    assert all("authorization" not in request.headers for request in store.requests)


def test_a_run_whose_files_cannot_be_sent_is_deleted(
    api: ScriptedServer, store: ScriptedServer, swissbrain: Command, tmp_path: Path
) -> None:
    (tmp_path / "data.csv").write_text("x")
    api.then(ok(run(status="created"), 201), problem(422, "too many files"), reply(204))
    result = swissbrain("run", "--shell", "true", "--file", "data.csv")
    assert (result.code, result.out, result.err) == (2, "", "swissbrain: --file: 'data.csv': too many files\n")
    assert (api.requests[-1].method, api.requests[-1].target) == ("DELETE", "/agent/runs/run_1")


def test_a_run_that_another_command_has_started_is_not_deleted(
    api: ScriptedServer, swissbrain: Command, tmp_path: Path
) -> None:
    (tmp_path / "data.csv").write_text("x")
    api.then(ok(run(status="created"), 201), problem(409, "it is queued", run_status="queued"))
    assert swissbrain("run", "--shell", "true", "--file", "data.csv", "--key", "k").code == 2
    assert [request.method for request in api.requests] == ["POST", "PUT"]
    # The same command again, after the run has started: nothing is left to do.
    api.then(ok(run(status="running"), 200))
    assert swissbrain("run", "--shell", "true", "--file", "data.csv", "--key", "k") == (0, "run_1\n", "")
    assert len(api.requests) == 3


@pytest.mark.parametrize("words", [("--file", "none"), ("--code", "none.py"), ("--code", "x.rb"), ("--plan", "none")])
def test_what_cannot_be_read_creates_no_run(api: ScriptedServer, swissbrain: Command, words: tuple[str, str]) -> None:
    Path("x.rb").touch()
    result = swissbrain("run", "--shell", "true", *words)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert words[1] in result.err
    assert api.requests == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run", "--shell", ""), "--shell: the command is empty"),
        (("run", "--shell", "true", "--shell", " \n"), "--shell: the command is empty"),
        (("run", "--code", ""), "--code: the path of the program is empty, or the current folder"),
        (("run", "--code", "empty.py"), "--code: empty.py is empty"),
        (("exec", ""), "the name of the program is empty"),
        (("exec", "--python", " ", "x"), "the name of the program is empty"),
    ],
)
def test_an_empty_program_is_named_before_a_run_is_created(
    api: ScriptedServer, swissbrain: Command, words: tuple[str, ...], message: str
) -> None:
    Path("empty.py").touch()
    result = swissbrain(*words)
    assert (result.code, result.out) == (2, "")
    assert result.err.endswith(f"{message}\n")
    assert result.err.count("\n") == 1
    assert api.requests == []


@pytest.mark.parametrize(("text", "typed"), [("the second", ""), ("-", "the second")])
def test_a_waiting_run_gets_its_input(
    api: ScriptedServer, swissbrain: Command, monkeypatch: pytest.MonkeyPatch, text: str, typed: str
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(typed.encode())))
    api.always = ok(state())
    assert swissbrain("resume", "run_1", text) == (0, "queued\n", "")
    assert api.requests[0].json == {"user_input": "the second"}


@pytest.mark.parametrize(
    ("words", "query"),
    [
        (("--tail", "50"), "tail=50"),
        (("--step", "3"), "after=0&limit=1000&step=2"),
        (("--stream", "stderr"), "after=0&limit=1000&stream=stderr"),
        (("-n", "5", "--step", "1", "--stream", "stdout"), "tail=5&step=0&stream=stdout"),
    ],
)
def test_parts_of_a_log_are_selected_by_the_api(
    api: ScriptedServer, swissbrain: Command, words: tuple[str, ...], query: str
) -> None:
    api.always = ok(EVENTS)
    assert swissbrain("logs", "run_1", *words).code == 0
    assert sorted(api.targets[0].partition("?")[2].split("&")) == sorted(query.split("&"))


def test_the_log_of_the_failed_step_is_shown(api: ScriptedServer, swissbrain: Command) -> None:
    error = {"code": "exit_code", "message": "m", "step": 1}
    api.then(ok(run(status="failed", error=error)), ok(EVENTS))
    assert swissbrain("logs", "run_1", "--failed").code == 0
    assert "step=1" in api.targets[1]
    cases: list[tuple[dict[str, Any], str]] = [
        ({"status": "running"}, "the run has not failed; it is running"),
        (
            {"status": "failed", "error": {"code": "expired", "message": "m"}},
            "failed outside of its steps: m (expired)",
        ),
    ]
    for changes, message in cases:
        api.then(ok(run(**changes)))
        result = swissbrain("logs", "run_1", "--failed")
        assert (result.code, result.out) == (2, "")
        assert message in result.err


@pytest.mark.parametrize(
    "words",
    [
        ("--tail", "0"),
        ("--step", "0"),
        ("--stream", "both"),
        ("--tail", "1", "--after", "1"),
        ("--failed", "--step", "1"),
        ("-f", "--tail", "1001"),
    ],
)
def test_contradictory_parts_of_a_log_are_rejected(
    api: ScriptedServer, swissbrain: Command, words: tuple[str, ...]
) -> None:
    result = swissbrain("logs", "run_1", *words)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert api.requests == []


def test_steps_are_counted_from_zero_in_json(api: ScriptedServer, swissbrain: Command) -> None:
    none = {"started_ms": None, "duration_ms": None, "result": None, "kept": None, "error": None}
    steps = [{"index": index, "name": "n", "tool": "t", "status": "pending", **none} for index in range(2)]
    api.always = ok({"run_id": "run_1", "steps": steps})
    assert [json.loads(line)["index"] for line in swissbrain("steps", "run_1", "--json").out.splitlines()] == [0, 1]
    assert [line.split()[0] for line in swissbrain("steps", "run_1").out.splitlines()] == ["step", "1", "2"]
