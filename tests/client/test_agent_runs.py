"""Usage of models, limits of a retry, partial results, and calls of an agent, in both clients and in the command."""

import json
from typing import Any

import pytest

from swissbrain import Client, Limits
from tests.client.both_clients import Connect
from tests.client.conftest import Command
from tests.client.scripted_server import TOKEN, ScriptedServer, end, event, ok, run, sse, state

USAGE: dict[str, Any] = {
    "exchanges": 12,
    "input_tokens": 34_567,
    "output_tokens": 890,
    "cached_tokens": 0,
    "reasoning_tokens": 0,
    "estimated": 0,
    "cost": {"CHF": "0.012345", "USD": "1.000000"},
    "unpriced": 3,
}
REPORT = {"days": [{"day": "2026-11-30", **USAGE}], "total": USAGE}
FAILED = run(
    "run_1",
    "failed",
    error={"code": "limit_turns", "message": "20 of 20 turns are used"},
    result={"summary": "half"},
    limits={"turns": 20, "cost": 1.5},
    usage=USAGE,
)


def test_both_clients_report_usage(api: ScriptedServer, connect: Connect) -> None:
    api.then(ok(REPORT), ok({"days": [], "total": USAGE}))
    with connect(api.url, TOKEN) as client:
        report = client.usage()
        assert client.usage(days=400).days == []
    assert [request.target for request in api.requests] == ["/agent/usage?days=30", "/agent/usage?days=400"]
    assert report.days[0].day == "2026-11-30"
    assert report.total.cost == {"CHF": "0.012345", "USD": "1.000000"}


def test_a_failed_run_has_its_partial_result_and_its_usage(api: ScriptedServer, client: Client) -> None:
    api.then(ok(FAILED))
    found = client.get_run("run_1")
    assert (found.result, found.limits) == ({"summary": "half"}, Limits(turns=20, cost=1.5))
    assert found.usage
    assert found.usage.unpriced == 3


@pytest.mark.parametrize("limits", [Limits(turns=40), {"turns": 40}])
def test_a_retry_sends_the_limits_that_it_is_given(
    api: ScriptedServer, connect: Connect, limits: Limits | dict[str, int]
) -> None:
    api.always = ok(state())
    with connect(api.url, TOKEN) as client:
        client.retry("run_1", limits=limits)
        client.retry("run_1")
    given, none = api.requests
    assert given.json == {"limits": {"turns": 40}}
    assert none.body == b""


def test_the_command_shows_usage_by_day_with_unknown_costs(api: ScriptedServer, swissbrain: Command) -> None:
    api.always = ok(REPORT)
    shown = swissbrain("usage", "--days", "7")
    assert (shown.code, shown.err) == (0, "")
    assert api.requests[0].target == "/agent/usage?days=7"
    cost = "CHF 0.012345, USD 1.000000, unknown for 3"
    for line, name in zip(shown.out.splitlines()[-2:], ("2026-11-30", "total"), strict=True):
        assert name in line
        assert all(part in line for part in ("12", "34,567", "890", cost))
    assert json.loads(swissbrain("usage", "--json").out) == REPORT


@pytest.mark.parametrize("days", ["0", "401", "x"])
def test_a_wrong_number_of_days_is_one_line_and_exit_code_2(
    api: ScriptedServer, swissbrain: Command, days: str
) -> None:
    result = swissbrain("usage", "--days", days)
    assert (result.code, result.err.count("\n"), api.requests) == (2, 1, [])


def test_the_command_retries_with_limits(api: ScriptedServer, swissbrain: Command) -> None:
    api.always = ok(state())
    assert swissbrain("retry", "run_1", "--limit", "turns=40", "--limit", "cost=2.5").code == 0
    assert api.requests[0].json == {"limits": {"turns": 40, "cost": 2.5}}


@pytest.mark.parametrize(
    ("limit", "complaint"),
    [
        ("turns", "not KEY=VALUE"),
        ("steps=3", "'steps' is no limit; allowed are turns"),
        ("turns=x", "no number"),
        ("wall_s=1x", "--limit: wall_s: '1x' is not a duration"),
    ],
)
def test_a_limit_that_is_none_is_refused(api: ScriptedServer, swissbrain: Command, limit: str, complaint: str) -> None:
    result = swissbrain("retry", "run_1", "--limit", limit)
    assert (result.code, api.requests) == (2, [])
    assert complaint in result.err


def test_show_and_wait_tell_of_a_partial_result(api: ScriptedServer, swissbrain: Command) -> None:
    api.always = ok(FAILED)
    shown = swissbrain("show", "run_1").out
    for text in (
        "limit_turns: 20 of 20 turns are used",
        "partial result  half",
        "turns 20, cost 1.5",
        "12 exchanges, 34,567 tokens in, 890 out, cost: CHF 0.012345, USD 1.000000, unknown for 3",
    ):
        assert text in shown
    waited = swissbrain("wait", "run_1")
    assert (waited.code, waited.out) == (1, "run_1 failed\n")
    assert waited.err == "swissbrain: run_1 has a partial result; 'swissbrain show run_1' shows it\n"


def test_both_clients_return_a_call_with_what_the_model_has_read(api: ScriptedServer, connect: Connect) -> None:
    api.always = ok({"tool": "shell", "status": "refused", "text": "no", "step": 1, "started_ms": 5, "code": "denied"})
    with connect(api.url, TOKEN) as client:
        call = client.call("run_1", 3)
    assert api.requests[0].target == "/agent/runs/run_1/steps/3"
    assert (call.text, call.code, call.duration_ms, call.result) == ("no", "denied", 0, {})


def test_calls_are_shown_with_the_step_of_their_plan(api: ScriptedServer, swissbrain: Command) -> None:
    call = {"index": 0, "name": "shell", "tool": "shell", "plan_step": 1, "status": "failed", "started_ms": 5}
    error = {"code": "denied", "message": "not allowed"}
    step = {**call, "duration_ms": 7, "result": None, "kept": None, "error": error}
    api.always = ok({"run_id": "run_1", "steps": [step]})
    shown = swissbrain("steps", "run_1").out
    assert "2: shell" in shown
    assert "denied: not allowed" in shown


RESULT: dict[str, Any] = {
    "summary": "The total is 6.\x1b[1m",
    "files": [{"path": "report.md", "size_bytes": 10}],
    "steps": [{"goal": "add\n2  forged", "outcome": "6"}, {"goal": "write", "outcome": ""}],
    "output": {"total": 6},
}


def test_a_followed_run_of_an_agent_ends_with_its_result(api: ScriptedServer, swissbrain: Command) -> None:
    log = [
        event(1, "model.message", n=0, text="", model="m"),
        event(2, "run.finished", status="succeeded"),
    ]
    api.then(sse(*log, end(2)), ok(run("run_1", "succeeded", result=RESULT)))
    shown = swissbrain("logs", "run_1", "-f")
    assert (shown.code, shown.err) == (0, "")
    rows = [" ".join(row.split()) for row in shown.out.splitlines()[1:]]
    assert rows == [
        "",
        "result The total is 6.",
        'output {"total":6}',
        "files report.md (10 bytes)",
        "plan 1 add 2 forged: 6",
        "2 write: not declared done",
    ]


def test_a_followed_run_that_failed_names_its_partial_result(api: ScriptedServer, swissbrain: Command) -> None:
    log = [event(1, "model.message", n=0, text="", model="m"), event(2, "run.finished", status="failed")]
    api.then(sse(*log, end(2)), ok(FAILED))
    shown = swissbrain("logs", "run_1", "-f")
    assert (shown.code, shown.err) == (
        1,
        "swissbrain: there is a partial result; 'swissbrain show run_1' shows it\n",
    )


def test_a_result_of_a_later_release_is_shown_as_json(api: ScriptedServer, swissbrain: Command) -> None:
    for result in ({"later": [1]}, {"summary": "s", "files": [1]}, {"summary": "s", "steps": [{}]}):
        api.then(ok(run("run_1", "succeeded", result=result)))
        assert f"result    {json.dumps(result, separators=(',', ':'))}" in swissbrain("show", "run_1").out
