"""Judgement of the calls of a reply."""

import json
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.contract.agent import ApprovalRule
from infra.contract.event_sizing import fit_requests
from infra.contract.requests import MAX_REQUESTS, check_requests, request_id
from infra.contract.tools import FileReadArgs, ShellArgs
from tests.agent.calling import RUN, judged, only
from worker.agent.calls import fingerprint
from worker.agent.schemas import CONTROL, AskUserArgs, FinishArgs

SHELL = ("shell", {"command": "ls"})
FINISH = ("finish", {"summary": "done"})
ASK = ("ask_user", {"question": "Which one?", "choices": ["a", "b"]})
REPLAN = ("replan", {"reason": "it fails"})
PLAN = ("plan", {"steps": [{"goal": "x", "tools": ["shell"]}]})
ASKS = ApprovalRule(tool="shell", policy="ask", expires_s=60, on_expiry="fail")


def test_a_good_call_may_be_executed() -> None:
    one = only(SHELL)
    assert (one.index, one.refusal, one.code, one.request) == (0, "", "", None)
    assert one.args == ShellArgs(command="ls")
    assert only(("file_list", "")).args == only(("file_list", " {} ")).args


@pytest.mark.parametrize(
    ("call", "code", "texts"),
    [
        (("shell", '{"command": "ls"'), "invalid_call", ["not valid JSON", "character 16 of 16", '{"command": "ls"']),
        (("shell", '["ls"]'), "invalid_call", ["one JSON object", "not a list"]),
        (("shell", '"ls"'), "invalid_call", ["one JSON object", "not a string"]),
        (("shell", "null"), "invalid_call", ["not null"]),
        (("shell", ""), "invalid_call", ["command: ", "missing", "timeout_s: number above 0 to 3600"]),
        (("shell", '{"command": "a", "command": "b"}'), "invalid_call", ["'command' is given twice"]),
        (("shell", {"command": ["ls", "-l"]}), "invalid_call", ["command: Expected `str`, got `array`"]),
        (("shell", {"cmd": "ls"}), "invalid_call", ["cmd", "allowed are command, timeout_s"]),
        (("shell", {"command": "ls", "timeout_s": "9"}), "invalid_call", ["timeout_s: Expected `float`, got `str`"]),
        (("shell", '{"command": "ls", "timeout_s": NaN}'), "invalid_call", ["NaN is not a JSON number"]),
        (("shell", '{"command": "ls", "timeout_s": 1e999}'), "invalid_call", ["1e999 is too large"]),
        (("shell", f'{{"command": "ls", "timeout_s": {"9" * 5000}}}'), "invalid_call", ["more than 18 digits"]),
        (("shell", '{"command": "\\ud800"}'), "invalid_call", ["half of a surrogate pair"]),
        (("code", {"language": "ruby", "source": "1"}), "invalid_call", ["language", "bash, node, python"]),
        (("file_read", {"path": "../x"}), "invalid_call", ["path: ", "'..'", "'data/table.csv'"]),
        (("file_write", {"path": ".run/a", "content": ""}), "invalid_call", ["path: ", "reserved"]),
        (("file_read", '{"path": "a", "max_bytes": 4.5}'), "invalid_call", ["Expected `int`, got `float`"]),
        (("file_read", {"path": "a", "max_bytes": 10**7}), "invalid_call", ["max_bytes: ", "1000000"]),
        (("finish", {"summary": "x", "files": ["/a"]}), "invalid_call", ["files[0]: ", "absolute"]),
        (("sh", {}), "unknown_tool", ["no tool 'sh'", "ask_user, browser, code, ", "shell, step_done"]),
        (("sh\u202e\n\x1b[2J" + "x" * 10**6, {}), "unknown_tool", ["'sh ", "xxx…'"]),
        (PLAN, "invalid_call", ["there is a plan", "'replan'"]),
    ],
)
def test_a_bad_call_is_told_how_to_do_it_right(call: tuple[str, Any], code: str, texts: list[str]) -> None:
    one = only(call)
    assert (one.code, one.request) == (code, None)
    for text in texts:
        assert text in one.refusal
    assert len(one.refusal) < 1500
    assert one.refusal.isprintable()


@pytest.mark.parametrize("text", ["[" * 10**6, '{"a":' * 10**5, '{"path":' + "[" * 40 + "]" * 40 + "}"])
def test_deep_nesting_is_refused(text: str) -> None:
    assert "nested too deeply; allowed are 32 levels" in only(("file_list", text)).refusal


def test_long_arguments_have_a_bound() -> None:
    assert only(("file_write", {"path": "a", "content": "x" * 1_000_000})).refusal == ""
    assert "allowed are 4194304" in only(("file_write", {"path": "a", "content": "x" * 5_000_000})).refusal


def test_calls_with_the_same_id_are_calls_of_their_own() -> None:
    both = judged(SHELL, SHELL, rules=[ASKS])
    assert [one.index for one in both] == [0, 1]
    assert len({one.request.id for one in both if one.request}) == 2


def test_a_plan_is_made_alone() -> None:
    first, shell, second, end = judged(PLAN, SHELL, PLAN, FINISH, purpose="plan")
    assert first.refusal == ""
    assert "call 'plan', and nothing else" in shell.refusal
    assert "called before in the same reply" in second.refusal
    assert end.code == "invalid_call"
    assert "steps[0].tols" in only(("plan", {"steps": [{"goal": "x", "tols": []}]}), purpose="plan").refusal


def test_a_summary_has_no_calls() -> None:
    assert "answer with the summary" in only(SHELL, purpose="summary").refusal


@pytest.mark.parametrize(
    ("calls", "refused"),
    [
        ([SHELL, FINISH], {}),
        ([FINISH, SHELL], {0: "must be the last call"}),
        ([FINISH, FINISH], {1: "called before"}),
        ([REPLAN, FINISH], {1: "wait for the new plan"}),
        ([ASK, FINISH], {1: "wait for the answer"}),
        ([("replan", {}), FINISH], {0: "invalid call of 'replan'"}),
        ([REPLAN, REPLAN], {1: "called before"}),
        ([("step_done", {"outcome": "a"}), ("step_done", {"outcome": "b"})], {}),
    ],
)
def test_control_calls_make_sense_together(calls: list[tuple[str, Any]], refused: dict[int, str]) -> None:
    result = judged(*calls)
    assert {one.index for one in result if one.refusal} == set(refused)
    for index, text in refused.items():
        assert text in result[index].refusal


def test_finish_has_the_output_that_the_task_asks_for() -> None:
    assert "'output' is missing" in only(FINISH, output_schema={"type": "integer"}).refusal
    one = only(("finish", {"summary": "x", "output": None}), output_schema={})
    assert one.args == FinishArgs(summary="x", output=None)


def test_only_planned_tools_may_be_used_in_a_strict_plan() -> None:
    shell, read, end = judged(SHELL, ("file_read", {"path": "a"}), FINISH, plan_tools=["file_read"])
    assert shell.code == "not_planned"
    assert "it names file_read. Call 'replan'" in shell.refusal
    assert (read.refusal, end.refusal) == ("", "")
    assert "it names none" in only(SHELL, plan_tools=[]).refusal


def test_a_denied_call_is_refused_with_the_reason() -> None:
    rules = [
        ApprovalRule(tool="code", policy="deny"),
        ApprovalRule(tool="file_write", policy="deny", match={"path": "secret/*"}),
    ]
    code, secret, other = judged(
        ("code", {"language": "bash", "source": "ls"}),
        ("file_write", {"path": "secret/a", "content": ""}),
        ("file_write", {"path": "a", "content": ""}),
        rules=rules,
    )
    assert (code.code, secret.code, other.code) == ("denied", "denied", "")
    assert "deny the tool 'code'" in code.refusal
    assert "by the rule for path = 'secret/*'" in secret.refusal


def test_a_call_that_needs_approval_is_shown_with_its_exact_arguments() -> None:
    before = time.time_ns() // 1_000_000
    args = {"command": "ls", "timeout_s": 5}
    one = only(("shell", args), rules=[ASKS], n=3)
    request = one.request
    assert request is not None
    assert (request.kind, request.question, request.tool, request.args) == (
        "approval",
        "May the run call shell?",
        "shell",
        args,
    )
    assert request.id == request_id(RUN, "tool:3:0", "shell", args)
    assert request.on_expiry == "fail"
    assert before + 60_000 <= request.expires_ms <= time.time_ns() // 1_000_000 + 60_000
    assert one.args == ShellArgs(command="ls", timeout_s=5.0)


def test_a_question_becomes_a_request() -> None:
    one = only(("ask_user", {"question": "Which\u202e one?", "choices": ["a\x1b[2J"]}))
    assert isinstance(one.args, AskUserArgs)
    request = one.request
    assert request is not None
    assert (request.kind, request.question, request.choices, request.tool) == ("question", "Which one?", ["a"], None)
    assert request.on_expiry == "deny"


def test_each_change_of_a_call_changes_its_id() -> None:
    def ids(call: tuple[str, Any], n: int = 1, before: int = 0) -> str:
        rules = [ApprovalRule(tool="*", policy="ask")]
        request = judged(*[("message", {"text": "x"})] * before, call, rules=rules, n=n)[-1].request
        assert request is not None
        return request.id

    args = {"path": "a", "max_bytes": 5}
    calls = [
        ids(("file_read", args)),
        ids(("file_read", args), n=2),
        ids(("file_read", args), before=1),
        ids(("file_read", {**args, "max_bytes": 6})),
        ids(("file_read", {"path": "a"})),
        ids(("file_delete", {"path": "a"})),
    ]
    assert len(set(calls)) == len(calls)
    for same in ('{"max_bytes":5,\n "path":"a"}', '{"path":"a","max_bytes":5.0}', '{"path":"a","max_bytes":50e-1}'):
        assert ids(("file_read", same)) == calls[0]


def test_hidden_characters_of_a_call_are_told() -> None:
    one = only(("shell", {"command": "ls \u202e\u200b\x1b"}), rules=[ASKS])
    assert one.request is not None
    assert one.request.question.endswith("Its arguments hold 3 control or invisible characters.")
    assert one.request.args == {"command": "ls \u202e\u200b\x1b"}


def test_a_call_that_is_too_long_to_be_shown_is_asked_alone_and_says_so() -> None:
    long = ("shell", {"command": "x" * 20_000})
    first, second = judged(long, SHELL, rules=[ASKS])
    assert first.request is not None
    assert "Its arguments have 20014 bytes as JSON and are shown only in part." in first.request.question
    (shown,) = fit_requests([first.request])
    assert shown["question"] == first.request.question
    assert shown["args"]["command"].startswith("xxx")
    assert (second.code, second.request) == ("invalid_call", None)
    assert "cannot see this call beside those before it" in second.refusal
    small, later = judged(SHELL, long, rules=[ASKS])
    assert small.request is not None
    assert later.request is None


def test_a_question_that_is_too_long_is_refused() -> None:
    one = only(("ask_user", {"question": "é" * 4000}))
    assert (one.code, one.request) == ("invalid_call", None)
    assert "shorten them to 4000" in one.refusal


def test_a_person_is_asked_a_bounded_number_of_things() -> None:
    result = judged(*[SHELL] * (MAX_REQUESTS + 3), rules=[ASKS])
    asked = [one.request for one in result if one.request]
    check_requests(asked, time.time_ns() // 1_000_000)
    assert fit_requests(asked) == msgspec.to_builtins(asked)
    assert all(one.refusal for one in result[len(asked) :])


def test_text_of_strangers_makes_a_way_out_need_approval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.agent.policy.is_way_out", lambda tool, _: tool == "shell")
    assert only(SHELL).request is None
    request = only(SHELL, tainted=True).request
    assert request is not None
    assert "has read text from outside" in request.question
    request = only(SHELL, tainted=True, rules=[ASKS]).request
    assert request is not None
    assert request.question == "May the run call shell?"


def test_the_longest_expiry_is_accepted() -> None:
    rule = msgspec.convert({"tool": "shell", "policy": "ask", "expires_s": 30 * 24 * 3600 - 60}, ApprovalRule)
    request = only(SHELL, rules=[rule]).request
    assert request is not None
    check_requests([request], time.time_ns() // 1_000_000)


def test_a_repetition_has_the_same_fingerprint() -> None:
    args = FileReadArgs(path="a")
    same = fingerprint("file_read", args, "see .run/call-3-0.stdout")
    assert (
        fingerprint("file_read", {"offset": 0, "path": "a", "max_bytes": 65_536}, "see .run/call-12-1.stdout") == same
    )
    others = [
        fingerprint("file_read", args, "other"),
        fingerprint("file_list", args, "see .run/call-3-0.stdout"),
        fingerprint("file_read", FileReadArgs(path="b"), "see .run/call-3-0.stdout"),
        fingerprint("file_read", None, "\ud800"),
    ]
    assert len({same, *others}) == 5


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
fields = st.sampled_from(
    ["command", "path", "content", "question", "choices", "steps", "summary", "files", "output", "language"]
)
arguments = st.one_of(
    st.text(st.characters(), max_size=50),
    json_values.map(json.dumps),
    st.dictionaries(fields, json_values, max_size=4).map(json.dumps),
    st.just('{"command": "ls"}'),
)
names = st.sampled_from([*CONTROL, "shell", "file_write", "code"]) | st.text(st.characters(), max_size=20)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(names, arguments), max_size=5),
    st.sampled_from(["plan", "turn", "summary"]),
    st.lists(st.sampled_from(["allow", "ask", "deny"]), max_size=2),
    st.none() | st.just(["shell"]),
)
def test_any_reply_is_judged(
    calls: list[tuple[str, str]], purpose: Any, policies: list[Any], plan_tools: list[str] | None
) -> None:
    rules = [ApprovalRule(tool="*", policy=policy) for policy in policies]
    result = judged(*calls, purpose=purpose, rules=rules, plan_tools=plan_tools)
    assert [one.index for one in result] == list(range(len(calls)))
    for one in result:
        assert bool(one.refusal) == bool(one.code)
        assert one.refusal or one.args is not None
        assert not (one.refusal and one.request)
        assert len(one.refusal) < 2000
        one.refusal.encode()
        if "deny" in policies and one.call.name not in CONTROL:
            assert one.refusal
    asked = [one.request for one in result if one.request]
    if asked:
        check_requests(asked, time.time_ns() // 1_000_000)
        msgspec.json.encode(asked)
