"""Commands: their requests, output and exit codes."""

import json
import re
from pathlib import Path

import pytest

from swissbrain.cli.app import COMMANDS
from swissbrain.cli.server_commands import SERVER_COMMANDS
from tests.client.conftest import Command
from tests.client.scripted_server import (
    ScriptedServer,
    end,
    event,
    gap,
    ok,
    page,
    problem,
    reply,
    reset,
    run,
    scripted_server,
    sse,
    state,
    summary,
)
from tests.support.scripted_http import Answer

ATTEMPT = {"fence": 1, "attempt": 1, "worker": "w", "started_ms": 5, "ended_ms": None, "outcome": None}


def log(*seqs: int, done: bool = True, **more: object) -> Answer:
    """Return an answer that sends a page of a log."""
    events = [{"seq": seq, "ts": seq, "type": "message", "step": None, "data": {"text": f"t{seq}"}} for seq in seqs]
    return ok({"events": events, "last_seq": 9, "next_after": max(seqs, default=0), "done": done, **more})


def test_options_of_run_become_fields_of_the_request(api: ScriptedServer, swissbrain: Command, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('[{"tool": "message", "args": {"text": {"$file": "t.txt"}}}]')
    (tmp_path / "t.txt").write_text("hello")
    api.always = ok(run("run_7"), 201)
    assert swissbrain("run", "do it") == (0, "run_7\n", "")
    assert swissbrain(
        *(
            "run",
            "do it",
            "--plan",
            "p.json",
            "--no-start",
            "--priority",
            "0",
            "--max-attempts",
            "2",
            "--timeout",
            "1.5",
        ),
        *("--metadata", "a=b", "--metadata", "c=d=e", "--key", "k"),
    ) == (0, "run_7\n", "")
    assert api.requests[0].json == {"prompt": "do it", "start": True}
    assert api.requests[1].json == {
        "prompt": "do it",
        "plan": [{"tool": "message", "args": {"text": "hello"}}],
        "start": False,
        "priority": 0,
        "max_attempts": 2,
        "timeout_s": 1.5,
        "metadata": {"a": "b", "c": "d=e"},
    }
    assert api.requests[1].headers["idempotency-key"] == "k"


@pytest.mark.parametrize("text", ["a\r\nb\rc\nd", "\r", "\n", "\ufeffa", "\u2028\u0085\x0c", ""])
def test_a_file_of_a_plan_is_sent_as_it_is(api: ScriptedServer, swissbrain: Command, tmp_path: Path, text: str) -> None:
    (tmp_path / "t.txt").write_bytes(text.encode())
    plan = b'[{"tool": "message",\r\n "args": {"text": {"$file": "t.txt"}}}]'
    api.always = ok(run("run_7"), 201)
    for mark in (b"", b"\xef\xbb\xbf"):  # editors on Windows begin a JSON file with a byte order mark
        (tmp_path / "p.json").write_bytes(mark + plan)
        assert swissbrain("run", "--plan", "p.json").code == 0
        assert api.requests[-1].json["plan"][0]["args"]["text"] == text


@pytest.mark.parametrize(
    ("status", "code"), [("succeeded", 0), ("failed", 1), ("cancelled", 3), ("of-a-later-release", 0)]
)
@pytest.mark.parametrize("words", [("run", "x", "-f"), ("logs", "run_1", "-f"), ("retry", "run_1", "-f")])
def test_the_outcome_of_a_followed_run_is_the_exit_code(
    api: ScriptedServer, swissbrain: Command, words: tuple[str, ...], status: str, code: int
) -> None:
    asks_before = {"run": [ok(run(), 201)], "logs": [], "retry": [ok(run(last_seq=4)), ok(state())]}[words[0]]
    first = 5 if words[0] == "retry" else 1
    api.then(*asks_before, sse(event(first, "message", text="hello"), end(first)), ok(run(status=status)))
    result = swissbrain(*words)
    assert result.code == code
    assert result.out.endswith("        hello\n")
    assert result.err == ("swissbrain: run run_1\n" if words[0] == "run" else "")


@pytest.mark.parametrize(("status", "code"), [("succeeded", 0), ("failed", 1), ("cancelled", 3)])
def test_the_exit_code_comes_from_the_log_not_from_the_current_state_of_the_run(
    api: ScriptedServer, swissbrain: Command, status: str, code: int
) -> None:
    # The current state is not asked for: since the end the run may have been retried or deleted.
    api.then(sse(event(1), event(2, "run.finished", status=status), end(2)))
    assert swissbrain("logs", "run_1", "-f").code == code
    assert len(api.requests) == 1


def test_events_after_a_gap_are_shown(api: ScriptedServer, swissbrain: Command) -> None:
    api.then(log(done=False, gap={"first": 1, "last": 2}, next_after=2), log(3, 4, done=True))
    result = swissbrain("logs", "run_1")
    assert [line.split()[-1] for line in result.out.splitlines()] == ["kept", "t3", "t4"]


def test_lost_connections_are_reported_on_stderr(api: ScriptedServer, swissbrain: Command, pauses: list[float]) -> None:
    api.then(sse(event(1), ends=reset), sse(gap(2, 3), event(4), end(4)), ok(run(status="succeeded")))
    result = swissbrain("logs", "run_1", "-f", "--after", "0", "--json")
    assert result.code == 0
    assert result.err.count("\n") == 2
    assert "; trying again\nswissbrain: connected again\n" in result.err
    shown = [json.loads(line) for line in result.out.splitlines()]
    assert [item.get("seq") or (item["first"], item["last"]) for item in shown] == [1, (2, 3), 4]


def test_a_log_of_a_running_run_is_shown_up_to_its_last_event(api: ScriptedServer, swissbrain: Command) -> None:
    api.then(log(3, 4, done=False), log(5, 6, done=False, gap={"first": 5, "last": 5}), log(done=False))
    result = swissbrain("logs", "run_1", "--after", "2")
    assert (result.code, result.err) == (0, "")
    assert [line.split()[-1] for line in result.out.splitlines()] == ["t3", "t4", "kept", "t5", "t6"]
    assert [target.partition("?")[2] for target in api.targets] == [f"after={after}&limit=1000" for after in (2, 4, 6)]


def test_runs_are_listed_over_pages_up_to_the_limit(api: ScriptedServer, swissbrain: Command) -> None:
    def listing(names: range, cursor: str | None) -> Answer:
        return ok({"runs": [summary(f"run_{name}") for name in names], "next_cursor": cursor})

    api.then(listing(range(100), "a/b+c="), listing(range(100, 150), None))
    result = swissbrain("runs", "--limit", "120", "--json", "--status", "failed")
    assert [json.loads(line)["run_id"] for line in result.out.splitlines()] == [f"run_{name}" for name in range(120)]
    first = "/agent/runs?limit=100&status=failed"
    assert api.targets == [first, f"{first}&cursor=a%2Fb%2Bc%3D"]
    api.then(listing(range(100), "more"))
    assert swissbrain("runs", "--limit", "3").out.count("run_") == 3
    api.then(listing(range(0), "more"), listing(range(2), None))
    assert swissbrain("runs").out.count("run_") == 2


def test_runs_that_cannot_be_read_are_named_beside_the_list(api: ScriptedServer, swissbrain: Command) -> None:
    api.then(ok({"runs": [summary("run_1")], "next_cursor": None, "unreadable": ["run_damaged"]}))
    result = swissbrain("runs", "--json")
    assert json.loads(result.out)["run_id"] == "run_1"
    assert result.err.startswith("swissbrain: the record of run run_damaged cannot be read")
    assert result.code == 0


def test_json_output_is_one_value_per_line(api: ScriptedServer, swissbrain: Command) -> None:
    files = {"files": [{"path": "a\nb", "size_bytes": 1, "modified_ms": 1}] * 2}
    depths = {"pending": 1, "ready": 1, "delayed": 0, "running": 2, "dead": 0}
    for words, answers, lines in [
        (("run", "x\u2028"), [ok(run(prompt="x\n\u2028y"), 201)], 1),
        (("show", "run_1"), [ok(run(prompt="x\n\u2028y"))], 1),
        (("logs", "run_1"), [log(1, 2, 3)], 3),
        (("runs",), [ok({"runs": [summary()] * 3, "next_cursor": None})], 3),
        (("files", "run_1"), [ok(files)], 2),
        (("start", "run_1"), [ok(state())], 1),
        (("cancel", "run_1"), [ok(state())], 1),
        (("retry", "run_1"), [ok(state())], 1),
        (("retry", "run_1", "run_2"), [ok(state()), ok(state())], 2),
        (
            ("retry", "--error", "worker_lost"),
            [ok({"runs": [summary("a"), summary("b")], "next_cursor": None}), ok(state()), ok(state())],
            2,
        ),
        (("fork", "run_1", "--from-step", "2"), [ok(run(), 201)], 1),
        (("show", "run_1", "--attempts"), [ok({"attempts": [ATTEMPT, ATTEMPT]})], 2),
        (("queue",), [ok(depths)], 1),
        (("runs",), [ok({"runs": [], "next_cursor": None})], 0),
    ]:
        api.then(*answers)
        result = swissbrain(*words, "--json")
        assert (result.code, result.err) == (0, ""), words
        assert result.out.endswith("\n") or not lines
        assert len([json.loads(line) for line in result.out.split("\n")[:-1]]) == lines, words


def test_output_for_people_names_states_errors_and_sizes(api: ScriptedServer, swissbrain: Command) -> None:
    api.then(ok(run(status="failed", error={"code": "c", "message": "m", "step": 0}, metadata={"k": "v"})))
    shown = swissbrain("show", "run_1").out
    assert "c: m (step 1)" in shown
    assert "k         v" in shown
    api.then(ok(run(status="running", cancel_requested=True)))
    assert "running, cancel requested" in swissbrain("show", "run_1").out
    api.then(ok(state() | {"status": "running", "cancel_requested": True}), ok(state("cancelled")))
    assert swissbrain("cancel", "run_1").out == "run_1 cancel requested\n"
    assert swissbrain("cancel", "run_1").out == "run_1 cancelled\n"
    api.then(ok(state()), ok({"files": [{"path": "[a]", "size_bytes": 1500, "modified_ms": 1}]}))
    assert swissbrain("start", "run_1").out == "queued\n"
    assert "[a]   1.5 kB" in swissbrain("files", "run_1").out
    api.then(ok({"pending": 11, "ready": 22, "delayed": 33, "running": 44, "dead": 55, "new": 1}))
    queue = " ".join(swissbrain("queue").out.split())
    assert queue == "runs ready 22 delayed 33 running 44 waiting 0 dead 55 wake tokens 11 workers alive 0"
    assert swissbrain("--version").out.startswith("swissbrain 0.")
    assert "Usage" in swissbrain("-h").out


@pytest.mark.parametrize("output", [None, "got.txt"])
def test_a_file_whose_name_is_a_pattern_is_fetched(
    api: ScriptedServer, swissbrain: Command, tmp_path: Path, output: str | None
) -> None:
    name = "a[1]*.txt"
    api.then(ok({"files": [{"path": name, "size_bytes": 2, "modified_ms": 1, "href": "h"}]}))
    api.then(reply(307, location=f"{api.url}/store"), reply(200, "hi"))
    saves = [] if output is None else ["-o", str(tmp_path / output)]
    result = swissbrain("files", "run_1", name, *saves)
    assert result.code == 0
    assert (result.out if output is None else (tmp_path / output).read_text()) == "hi"


def test_files_are_printed_and_saved(api: ScriptedServer, swissbrain: Command, tmp_path: Path) -> None:
    with scripted_server() as store:
        api.always, store.always = reply(307, location=store.url), reply(200, "é\n")
        assert swissbrain("files", "run_1", "a") == (0, "é\n", "")
        assert swissbrain("files", "run_1", "a", "-o", "kept") == (0, "", "")
        store.always = page(403)
        assert swissbrain("files", "run_1", "a", "-o", "kept") == (2, "", "swissbrain: the object store refused 'a'\n")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["é\n"]


def test_a_deletion_whose_response_was_lost_succeeds(
    api: ScriptedServer, swissbrain: Command, pauses: list[float]
) -> None:
    api.then(reset, problem(404, "there is no run 'a'"))
    assert swissbrain("delete", "a") == (0, "a deleted\n", "")
    api.then(reply(204))
    assert swissbrain("delete", "a") == (0, "a deleted\n", "")
    api.then(problem(404, "there is no run 'a'"))
    assert swissbrain("delete", "a") == (2, "", "swissbrain: there is no run 'a'\n")
    api.then(reset, problem(409, "it runs"))
    assert swissbrain("delete", "a").code == 2
    api.then(page())
    assert "does not answer as this API does" in swissbrain("delete", "a").err


def test_the_documentation_names_every_command_and_no_other() -> None:
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    commands = {*SERVER_COMMANDS, *COMMANDS}
    assert set(re.findall(r"^\| `swissbrain (\w+)", page, re.MULTILINE)) == commands


def test_the_list_of_runs_shows_error_codes(api: ScriptedServer, swissbrain: Command) -> None:
    error = {"code": "worker_lost", "message": "m"}
    api.then(ok({"runs": [summary(status="failed", error=error), summary()], "next_cursor": None}))
    shown = swissbrain("runs").out
    assert "failed: worker_lost" in shown
    assert "queued  " in shown


@pytest.mark.parametrize(
    "text", ["\x7f\x9b31m", "\u202e\u2066\u061c", "\u2028\u2029\x85", "\U000e0041", "é ü 中 😀 \u00a0", "\x1b[2J"]
)
def test_json_has_no_character_that_a_terminal_obeys(api: ScriptedServer, swissbrain: Command, text: str) -> None:
    api.always = ok(run("run_1", prompt=text, metadata={text: text}))
    code, out, _ = swissbrain("show", "run_1", "--json")
    assert code == 0
    shown = json.loads(out)
    assert (shown["prompt"], shown["metadata"]) == (text, {text: text})
    assert out.endswith("\n")
    assert out[:-1].isprintable()


def test_printable_characters_of_json_are_not_escaped(api: ScriptedServer, swissbrain: Command) -> None:
    api.always = ok(run("run_1", prompt="é ü 中 😀"))
    assert '"é ü 中 😀"' in swissbrain("show", "run_1", "--json").out
