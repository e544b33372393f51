"""Commands by which people take part in runs, in front of a scripted server: requests, output, exit codes."""

import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console

from swissbrain import OpenRequest
from swissbrain.cli.open_requests import request_text
from tests.client.conftest import Command
from tests.client.scripted_server import ScriptedServer, end, event, ok, problem, run, sse, state, summary
from tests.client.test_event_lines import FORBIDDEN

QUESTION = {"id": "q1", "kind": "question", "question": "Which?", "expires_ms": 1, "on_expiry": "fail"}
APPROVAL = {
    "id": "a1",
    "kind": "approval",
    "question": "May I?",
    "expires_ms": 1,
    "on_expiry": "deny",
    "tool": "shell",
    "args": {"command": "rm a\nrm \x1b[8mb"},
}


def waiting(*requests: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return run(status="waiting", waiting={"since_ms": 1, "requests": [*requests]}, **changes)


def answered(decision: str, by: str = "bob") -> dict[str, Any]:
    data = {"request": "a1", "decision": decision, "by": by}
    events = [{"seq": 9, "ts": 1, "type": "run.input", "step": None, "data": data}]
    return {"events": events, "last_seq": 9, "next_after": 9, "done": False, "first_seq": 9, "prev_before": None}


def test_options_of_run_become_options_of_the_agent(api: ScriptedServer, swissbrain: Command) -> None:
    Path("rules.yaml").write_text("- tool: shell\n  policy: ask\n")
    Path("schema.json").write_text('{"type": "object"}')
    Path("rules.md").write_text("Be brief.\n")
    api.always = ok(run("run_7"), 201)
    words = (
        "--model",
        "small",
        "--tool",
        "shell",
        "--tool",
        "file_read",
        "--strict-plan",
        "--no-stream",
        "--continue",
        "run_6",
    )
    limits = ("--continue", "run_6", "--limit", "turns=20", "--limit", "cost=0.5", "--limit", "wall_s=10m")
    files = ("--approvals", "rules.yaml", "--output-schema", "schema.json", "--instructions", "rules.md")
    assert swissbrain("run", "do it", *words, *limits, *files) == (0, "run_7\n", "")
    assert api.requests[0].json == {
        "prompt": "do it",
        "start": True,
        "model": "small",
        "tools": ["shell", "file_read"],
        "strict_plan": True,
        "continue_of": "run_6",
        "stream": False,
        "limits": {"turns": 20, "cost": 0.5, "wall_s": 600.0},
        "approvals": [{"tool": "shell", "policy": "ask"}],
        "output_schema": {"type": "object"},
        "instructions": "Be brief.\n",
    }
    assert swissbrain("run", "do it", "--instructions", "Be brief.").code == 0
    assert api.requests[1].json["instructions"] == "Be brief."


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--limit", "steps=1"), "allowed are turns, tool_calls"),
        (("--limit", "turns"), "turns"),
        (("--limit", "turns=many"), "'many' is no number for 'turns'"),
        (("--limit", "wall_s=soon"), "not a duration"),
        (("--instructions", "missing.md"), "cannot read missing.md"),
        (("--approvals", "missing.json"), "cannot read missing.json"),
        (("--approvals", "text.json"), "holds no list of rules"),
        (("--output-schema", "text.json"), "holds no object"),
    ],
)
def test_bad_options_create_no_run(api: ScriptedServer, swissbrain: Command, words: tuple[str, str], said: str) -> None:
    Path("text.json").write_text('"x"')
    result = swissbrain("run", "x", *words)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert said in result.err
    assert api.requests == []


def test_an_approval_names_its_request(api: ScriptedServer, swissbrain: Command) -> None:
    api.always = ok(state())
    assert swissbrain("approve", "run_1", "a1", "--comment", "careful") == (0, "queued\n", "")
    assert swissbrain("deny", "run_1", "a1") == (0, "queued\n", "")
    assert swissbrain("resume", "run_1", "the second", "--request", "q1").code == 0
    assert [request.json["answers"] for request in api.requests] == [
        {"a1": {"approve": True, "comment": "careful"}},
        {"a1": {"approve": False}},
        {"q1": {"input": "the second"}},
    ]


def test_without_a_request_the_only_approval_is_shown_and_meant(api: ScriptedServer, swissbrain: Command) -> None:
    api.then(ok(waiting(QUESTION, APPROVAL)), ok(state("waiting")))
    result = swissbrain("approve", "run_1")
    assert (result.code, result.out) == (0, "waiting\n")
    assert "      │ rm a\n" in result.err
    assert ' json │ "rm \\u001b[8mb"\n' in result.err
    assert api.requests[1].json == {"answers": {"a1": {"approve": True}}}
    api.then(ok(waiting(APPROVAL, {**APPROVAL, "id": "a2"})))
    refused = swissbrain("approve", "run_1")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "name one of a1, a2" in refused.err
    api.then(ok(run(status="running")))
    assert swissbrain("deny", "run_1").err == "swissbrain: the run does not wait for an approval; it is running\n"


@pytest.mark.parametrize(
    ("decision", "code", "said"),
    [("approved", 0, "already approved by bob"), ("denied", 2, "already denied by bob")],
)
def test_an_approval_that_comes_second_says_who_was_first(
    api: ScriptedServer, swissbrain: Command, decision: str, code: int, said: str
) -> None:
    api.then(problem(409, "not open"), ok(answered(decision)))
    assert swissbrain("approve", "run_1", "a1") == (code, "", f"swissbrain: {said}\n")
    api.then(problem(409, "not open"), ok(answered(decision)))
    assert swissbrain("approve", "run_1", "other") == (2, "", "swissbrain: not open\n")


def test_messages_and_interrupts(api: ScriptedServer, swissbrain: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    api.then(ok(state("running")), ok(state("running")), ok(state("running")), ok(state("waiting")))
    assert swissbrain("say", "run_1", "hurry") == (0, "running\n", "")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"from\r\na file")))
    assert swissbrain("say", "run_1", "-").code == 0
    assert swissbrain("interrupt", "run_1") == (0, "interrupt requested\n", "")
    assert swissbrain("interrupt", "run_1") == (0, "waiting\n", "")
    assert [request.target.rpartition("/")[2] for request in api.requests] == ["messages"] * 2 + ["interrupt"] * 2
    assert api.requests[1].json == {"text": "from\r\na file"}
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff")))
    assert swissbrain("say", "run_1", "-") == (2, "", "swissbrain: cannot read standard input: it is not UTF-8 text\n")


def test_only_a_terminal_asks_for_answers(api: ScriptedServer, swissbrain: Command) -> None:
    result = swissbrain("resume", "run_1")
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert "give TEXT" in result.err
    assert api.requests == []


def test_a_followed_run_that_waits_says_which_commands_answer(api: ScriptedServer, swissbrain: Command) -> None:
    past = event(1, "run.waiting", question="old", requests=[{"id": "old"}, "x", {}])
    now = event(2, "run.waiting", question="Which?", requests=[{"id": "q1"}, {"id": "a1"}])
    api.then(
        sse(past, now, event(3, "run.finished", status="succeeded"), end(3)),
        *[ok(waiting(QUESTION, APPROVAL))] * 2,
    )
    result = swissbrain("logs", "run_1", "-f")
    assert result.code == 0
    assert result.out.endswith("run succeeded\n")
    assert result.err.splitlines() == [
        "swissbrain: the run waits; 'swissbrain resume run_1 TEXT --request q1' answers",
        "swissbrain: the run waits; 'swissbrain approve run_1 a1', or 'deny' instead of 'approve', answers",
    ]


def test_the_inbox_shows_each_request(api: ScriptedServer, swissbrain: Command) -> None:
    both = {"since_ms": 1, "requests": [QUESTION, APPROVAL]}
    api.then(ok({"runs": [summary(status="waiting", waiting=both)], "next_cursor": None, "complete": True}))
    result = swissbrain("runs", "--status", "waiting")
    shown = result.out.splitlines()
    assert "question q1" in shown
    assert "approval a1" in shown
    assert "      │ rm a" in shown
    rules = [{"tool": "*", "policy": "ask"}]
    api.then(ok(waiting(APPROVAL, model="small\x1b[1m", limits={"turns": 20, "cost": 0.5}, approvals=rules)))
    shown = swissbrain("show", "run_1").out.splitlines()
    assert "approval a1" in shown
    assert [row.strip().split(maxsplit=1) for row in shown if row.startswith(("model", "limits", "rules"))] == [
        ["limits", "turns 20, cost 0.5"],
        ["model", "small"],
        ["rules", "ask *"],
    ]


INVISIBLE = re.compile("[\u200b\u00ad\ufe0f\u034f\u3164\u2800\U000e0041\U000e0100]")
TEXTS = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('\x1b\n\r\u202e\u200b\\"│ ┊'), max_size=60)


@given(TEXTS, st.sampled_from([12, 40, 1000]))
@example("\U0001f3fb", 12)
@example("a\u00ad\ufe0f\u034f\u3164\u2800\U000e0041\U000e0100", 80)
def test_an_approval_shows_its_arguments_exactly_and_they_forge_no_line(text: str, width: int) -> None:
    request = OpenRequest(
        id="a", kind="approval", question="?", expires_ms=1, on_expiry="deny", tool="t", args={"a": text, "b": [text]}
    )
    screen = Console(file=io.StringIO(), width=width)
    shown = request_text(request, screen).plain
    assert not FORBIDDEN.search(shown)
    assert not INVISIBLE.search(shown)
    first, second, rest = shown.split("\n    a\n")[1].partition("\n    b\n")
    assert second
    parts: list[list[str]] = []
    for line in first.split("\n"):
        mark, piece = line[:8], line[8:]
        assert mark in {"      │ ", "      ┊ ", " json │ "}
        if mark == "      ┊ ":
            parts[-1][1] += piece
        else:
            parts.append([mark, piece])
    assert "\n".join(json.loads(part) if mark == " json │ " else part for mark, part in parts) == text
    listed = rest.split("\n  open until")[0].split("\n")
    assert json.loads("".join(line[8:] for line in listed)) == [text]


def test_an_approval_that_expires_is_said_to_be_denied() -> None:
    given: dict[str, Any] = {"id": "a", "question": "?", "expires_ms": 1}
    ends = {
        ("approval", "deny"): "then the call is denied",
        ("question", "deny"): "then the run continues without an answer",
        ("approval", "fail"): "then the run fails",
    }
    for (kind, on_expiry), shown in ends.items():
        request = msgspec.convert({**given, "kind": kind, "on_expiry": on_expiry}, OpenRequest)
        assert request_text(request, Console(file=io.StringIO(), width=80)).plain.endswith(shown)


def test_approve_says_that_the_run_waits_for_an_answer_instead(api: ScriptedServer, swissbrain: Command) -> None:
    api.then(ok(waiting(QUESTION)))
    result = swissbrain("approve", "run_1")
    assert (result.code, result.err) == (
        2,
        "swissbrain: the run waits for an answer, not for an approval; 'swissbrain resume run_1' gives it\n",
    )


def test_a_truncated_request_says_so() -> None:
    request = OpenRequest(
        id="a", kind="question", question="\x1b[2Jlong…", expires_ms=1, on_expiry="fail", truncated=True, choices=["x"]
    )
    shown = request_text(request, Console(file=io.StringIO(), width=80)).plain
    assert shown.split("\n")[:4] == [
        "question a",
        "  ? long…",
        "  1) x",
        "  the whole is longer than what is shown here",
    ]
