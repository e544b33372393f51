"""The command: what it asks for, what it says, and how it ends."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from swissbrain.cli import COMMANDS
from swissbrain.cli.server_commands import SERVER_COMMANDS
from tests.client.conftest import Command
from tests.client.stand_in import (
    Answer,
    StandIn,
    cut,
    end,
    event,
    gap,
    ok,
    page,
    problem,
    reply,
    run,
    sse,
    stand_in,
    state,
    summary,
)

ATTEMPT = {"fence": 1, "attempt": 1, "worker": "w", "started_ms": 5, "ended_ms": None, "outcome": None}


def log(*seqs: int, done: bool = True, **more: object) -> Answer:
    """A page of a log."""
    events = [{"seq": seq, "ts": seq, "type": "message", "step": None, "data": {"text": f"t{seq}"}} for seq in seqs]
    return ok({"events": events, "last_seq": 9, "next_after": max(seqs, default=0), "done": done, **more})


def test_a_run_is_made_of_what_is_said(api: StandIn, swissbrain: Command, tmp_path: Path) -> None:
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


@pytest.mark.parametrize(
    ("status", "code"), [("succeeded", 0), ("failed", 1), ("cancelled", 3), ("of-a-later-release", 0)]
)
@pytest.mark.parametrize("words", [("run", "x", "-f"), ("logs", "run_1", "-f"), ("retry", "run_1", "-f")])
def test_the_outcome_of_a_followed_run_is_the_exit_code(
    api: StandIn, swissbrain: Command, words: tuple[str, ...], status: str, code: int
) -> None:
    asks_before = {"run": [ok(run(), 201)], "logs": [], "retry": [ok(run(last_seq=4)), ok(state())]}[words[0]]
    first = 5 if words[0] == "retry" else 1
    api.then(*asks_before, sse(event(first, "message", text="hello"), end(first)), ok(run(status=status)))
    said = swissbrain(*words)
    assert said.code == code
    assert said.out.endswith("        hello\n")
    assert said.err == ("swissbrain: run run_1\n" if words[0] == "run" else "")


@pytest.mark.parametrize(("status", "code"), [("succeeded", 0), ("failed", 1), ("cancelled", 3)])
def test_the_outcome_is_what_the_log_says(api: StandIn, swissbrain: Command, status: str, code: int) -> None:
    """Not what has become of the run since: it may have been retried, or deleted, or nobody may be there to say."""
    api.then(sse(event(1), event(2, "run.finished", status=status), end(2)))
    assert swissbrain("logs", "run_1", "-f").code == code
    assert len(api.requests) == 1


def test_after_what_is_gone_comes_what_is_kept(api: StandIn, swissbrain: Command) -> None:
    api.then(log(done=False, gap={"first": 1, "last": 2}, next_after=2), log(3, 4, done=True))
    said = swissbrain("logs", "run_1")
    assert [line.split()[-1] for line in said.out.splitlines()] == ["kept", "t3", "t4"]


def test_losses_of_the_connection_are_told(api: StandIn, swissbrain: Command, pauses: list[float]) -> None:
    api.then(sse(event(1), ends=cut), sse(gap(2, 3), event(4), end(4)), ok(run(status="succeeded")))
    said = swissbrain("logs", "run_1", "-f", "--after", "0", "--json")
    assert said.code == 0
    assert said.err.count("\n") == 2
    assert "; trying again\nswissbrain: connected again\n" in said.err
    shown = [json.loads(line) for line in said.out.splitlines()]
    assert [item.get("seq") or (item["first"], item["last"]) for item in shown] == [1, (2, 3), 4]


def test_a_log_is_shown_as_it_is_by_now(api: StandIn, swissbrain: Command) -> None:
    api.then(log(3, 4, done=False), log(5, 6, done=False, gap={"first": 5, "last": 5}), log(done=False))
    said = swissbrain("logs", "run_1", "--after", "2")
    assert (said.code, said.err) == (0, "")
    assert [line.split()[-1] for line in said.out.splitlines()] == ["t3", "t4", "kept", "t5", "t6"]
    assert [target.partition("?")[2] for target in api.targets] == [f"after={after}&limit=1000" for after in (2, 4, 6)]


def test_runs_are_listed_over_pages_as_far_as_wanted(api: StandIn, swissbrain: Command) -> None:
    def listing(names: range, cursor: str | None) -> Answer:
        return ok({"runs": [summary(f"run_{name}") for name in names], "next_cursor": cursor})

    api.then(listing(range(100), "a/b+c="), listing(range(100, 150), None))
    said = swissbrain("runs", "--limit", "120", "--json", "--status", "failed")
    assert [json.loads(line)["run_id"] for line in said.out.splitlines()] == [f"run_{name}" for name in range(120)]
    first = "/agent/runs?limit=100&status=failed"
    assert api.targets == [first, f"{first}&cursor=a%2Fb%2Bc%3D"]
    api.then(listing(range(100), "more"))
    assert swissbrain("runs", "--limit", "3").out.count("run_") == 3
    api.then(listing(range(0), "more"), listing(range(2), None))
    assert swissbrain("runs").out.count("run_") == 2


def test_json_is_a_value_a_line(api: StandIn, swissbrain: Command) -> None:
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
            [ok({"runs": [summary()] * 2, "next_cursor": None}), ok(state()), ok(state())],
            2,
        ),
        (("fork", "run_1", "--from-step", "2"), [ok(run(), 201)], 1),
        (("show", "run_1", "--attempts"), [ok({"attempts": [ATTEMPT, ATTEMPT]})], 2),
        (("queue",), [ok(depths)], 1),
        (("runs",), [ok({"runs": [], "next_cursor": None})], 0),
    ]:
        api.then(*answers)
        said = swissbrain(*words, "--json")
        assert (said.code, said.err) == (0, ""), words
        assert said.out.endswith("\n") or not lines
        assert len([json.loads(line) for line in said.out.split("\n")[:-1]]) == lines, words


def test_what_is_shown_to_people(api: StandIn, swissbrain: Command) -> None:
    api.then(ok(run(status="failed", error={"code": "c", "message": "m", "step": 0}, metadata={"k": "v"})))
    shown = swissbrain("show", "run_1").out
    assert "c: m (step 1)" in shown
    assert "k         v" in shown
    api.then(ok(run(status="running", cancel_requested=True)))
    assert "running, cancel requested" in swissbrain("show", "run_1").out
    api.then(ok(state() | {"status": "running", "cancel_requested": True}), ok(state("cancelled")))
    assert swissbrain("cancel", "run_1").out == "cancel requested\n"
    assert swissbrain("cancel", "run_1").out == "cancelled\n"
    api.then(ok(state()), ok({"files": [{"path": "[a]", "size_bytes": 1500, "modified_ms": 1}]}))
    assert swissbrain("start", "run_1").out == "queued\n"
    assert "[a]   1.5 kB" in swissbrain("files", "run_1").out
    api.then(ok({"pending": 11, "ready": 22, "delayed": 33, "running": 44, "dead": 55, "new": 1}))
    assert swissbrain("queue").out.split()[1:] == (
        ["ready", "22", "delayed", "33", "running", "44", "dead", "55", "wake", "tokens", "11"]
    )
    assert swissbrain("--version").out.startswith("swissbrain 0.")
    assert "Usage" in swissbrain("-h").out


def test_files_are_printed_and_saved(api: StandIn, swissbrain: Command, tmp_path: Path) -> None:
    with stand_in() as store:
        api.always, store.always = reply(307, location=store.url), reply(200, "é\n")
        assert swissbrain("files", "run_1", "a") == (0, "é\n", "")
        assert swissbrain("files", "run_1", "a", "-o", "kept") == (0, "", "")
        store.always = page(403)
        assert swissbrain("files", "run_1", "a", "-o", "kept") == (2, "", "swissbrain: the object store refused 'a'\n")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["é\n"]


def test_a_deletion_whose_answer_was_lost_is_done(api: StandIn, swissbrain: Command, pauses: list[float]) -> None:
    api.then(cut, problem(404, "there is no run 'a'"))
    assert swissbrain("delete", "a") == (0, "a deleted\n", "")
    api.then(reply(204))
    assert swissbrain("delete", "a") == (0, "a deleted\n", "")
    api.then(problem(404, "there is no run 'a'"))
    assert swissbrain("delete", "a") == (2, "", "swissbrain: there is no run 'a'\n")
    api.then(cut, problem(409, "it runs"))
    assert swissbrain("delete", "a").code == 2
    api.then(page())
    assert "does not answer as this API does" in swissbrain("delete", "a").err


def test_the_documentation_names_every_command_and_no_other() -> None:
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    commands = {*SERVER_COMMANDS, *(command.__name__ for command in COMMANDS)}
    assert set(re.findall(r"^\| `swissbrain (\w+)", page, re.MULTILINE)) == commands


def test_a_fork_counts_steps_as_people_do(api: StandIn, swissbrain: Command) -> None:
    api.then(ok(run("run_2"), 201))
    assert swissbrain("fork", "run_1", "--from-step", "3") == (0, "run_2\n", "")
    assert api.requests[-1].json == {"from_step": 2, "start": True}
    api.then(ok(run("run_3"), 201))
    assert swissbrain("fork", "run_1", "--from-step", "1", "--prompt", "better").out == "run_3\n"
    assert api.requests[-1].json == {"from_step": 0, "start": True, "prompt": "better"}


@pytest.mark.parametrize(
    ("command", "done", "said"), [("retry", ok(state()), "queued"), ("delete", reply(204), "deleted")]
)
def test_all_that_failed_alike_are_done_with_alike(
    api: StandIn, swissbrain: Command, command: str, done: Answer, said: str
) -> None:
    api.then(ok({"runs": [summary("run_1"), summary("run_2")], "next_cursor": None}), done, done)
    assert swissbrain(command, "--error", "worker_lost") == (0, f"run_1 {said}\nrun_2 {said}\n", "")
    assert api.targets[0] == "/agent/runs?limit=100&status=failed&error=worker_lost"
    assert [target.split("/")[3] for target in api.targets[1:]] == ["run_1", "run_2"]
    api.then(ok({"runs": [], "next_cursor": None}))
    assert swissbrain(command, "--error", "lost") == (0, "", "swissbrain: no run has failed with 'lost'\n")


@pytest.mark.parametrize(
    ("command", "done", "said"), [("retry", ok(state()), "queued"), ("delete", reply(204), "deleted")]
)
def test_of_many_runs_those_that_cannot_be_had_keep_no_other_waiting(
    api: StandIn, swissbrain: Command, command: str, done: Answer, said: str
) -> None:
    api.then(problem(404, "there is no run 'a'"), problem(409, "it runs"), done)
    told = "swissbrain: a: there is no run 'a'\nswissbrain: b: it runs\n"
    assert swissbrain(command, "a", "b", "c") == (2, f"c {said}\n", told)
    api.then(problem(403, "not allowed"))
    assert swissbrain(command, "a", "b") == (2, "", "swissbrain: not allowed\n")


@pytest.fixture
def _in_zurich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Europe/Zurich")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("_in_zurich")
def test_a_run_can_be_told_when_to_begin(api: StandIn, swissbrain: Command) -> None:
    api.always = ok(run(start_at_ms=4102444800000), 201)
    for text in ("2100-01-01T00:00Z", "2100-01-01T01:00:00.000", "2100-01-01 02:30+02:30", "20991231T190000-0500"):
        assert swissbrain("run", "x", "--start-at", text).code == 0
        assert api.requests[-1].json == {"prompt": "x", "start": True, "start_at_ms": 4102444800000}
    assert "to start  2100-01-01 01:00:00" in swissbrain("show", "run_1").out


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("2020-01-01T00:00Z", "is in the past"),
        ("0001-01-01", "is not a time such as"),
        ("9999-12-31T23:59:59-12:00", "is not a time such as"),
        ("2026-13-01", "is not a time such as"),
        ("tomorrow", "is not a time such as"),
        ("", "is not a time such as"),
    ],
)
def test_a_moment_that_makes_no_sense_is_refused(api: StandIn, swissbrain: Command, text: str, why: str) -> None:
    said = swissbrain("run", "x", "--start-at", text)
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert why in said.err
    assert api.requests == []


def test_a_list_says_why_runs_have_failed(api: StandIn, swissbrain: Command) -> None:
    error = {"code": "worker_lost", "message": "m"}
    api.then(ok({"runs": [summary(status="failed", error=error), summary()], "next_cursor": None}))
    shown = swissbrain("runs").out
    assert "failed: worker_lost" in shown
    assert "queued  " in shown


@pytest.mark.parametrize(
    "words",
    [
        ("retry", "a", "--error", "x"),
        ("retry", "a", "b", "-f"),
        ("delete",),
        ("delete", "a", "--error", "x"),
        ("run", "x", "--delay", "1", "--start-at", "2100-01-01"),
    ],
)
def test_contradictions_are_refused(api: StandIn, swissbrain: Command, words: tuple[str, ...]) -> None:
    assert swissbrain(*words).code == 2
    assert api.requests == []
