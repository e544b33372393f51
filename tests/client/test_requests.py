"""Requests: content, retries, and the meaning of responses."""

import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from types import MappingProxyType

import pytest

from swissbrain import ApiError, ApprovalRule, Client, ClientError, Limits, Unreachable
from swissbrain.messages import ATTEMPTS, _http_date
from swissbrain.models import PlanStep
from tests.client.both_clients import Connect
from tests.client.scripted_server import (
    TOKEN,
    ScriptedServer,
    close_early,
    end,
    event,
    ok,
    page,
    partial,
    problem,
    reply,
    reset,
    run,
    silent,
    sse,
    state,
)
from tests.support.scripted_http import Wire
from tests.support.waiting import wait_until


def keys(api: ScriptedServer) -> list[str | None]:
    return [request.headers.get("idempotency-key") for request in api.requests]


def test_create_run_sends_only_the_given_fields(api: ScriptedServer, client: Client) -> None:
    api.then(ok(run(), 201), ok(run(), 201))
    assert client.create_run(prompt="x").run_id == "run_1"
    client.create_run(plan=[{"tool": "message", "args": {"text": "é"}}], start=False, priority=0, metadata={"a": "b"})
    first, second = api.requests
    assert (first.method, first.target) == ("POST", "/agent/runs")
    assert first.headers["content-type"] == "application/json"
    assert first.json == {"prompt": "x", "start": True}
    assert second.json == {
        "plan": [{"tool": "message", "args": {"text": "é"}}],
        "start": False,
        "priority": 0,
        "metadata": {"a": "b"},
    }


def test_create_run_sends_the_options_of_an_agent(api: ScriptedServer, client: Client) -> None:
    api.then(ok(run(), 201))
    client.create_run(
        prompt="x",
        model="small",
        instructions="be brief",
        tools=("shell",),
        approvals=[ApprovalRule(tool="shell", policy="ask"), {"tool": "*", "policy": "deny"}],
        limits=Limits(turns=20, cost=0.5),
        output_schema={"type": "object"},
        strict_plan=True,
        stream=False,
    )
    assert api.requests[0].json == {
        "prompt": "x",
        "start": True,
        "model": "small",
        "instructions": "be brief",
        "tools": ["shell"],
        "approvals": [{"tool": "shell", "policy": "ask"}, {"tool": "*", "policy": "deny"}],
        "limits": {"turns": 20, "cost": 0.5},
        "output_schema": {"type": "object"},
        "strict_plan": True,
        "stream": False,
    }
    with pytest.raises(TypeError, match="unexpected keyword argument 'modell'"):
        client.create_run(prompt="x", modell="small")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "lost", [reset, close_early, partial(), problem(503, "later"), page(502), page(504), page(429)]
)
def test_a_lost_response_is_retried_with_the_same_key(
    api: ScriptedServer, client: Client, pauses: list[float], lost: object
) -> None:
    api.then(lost, lost, ok(run(), 201), ok(run(), 201))  # type: ignore[arg-type]
    client.create_run(prompt="x")
    client.create_run(prompt="x")
    *tries, other = keys(api)
    assert len(tries) == 3
    assert len({*tries}) == 1
    assert tries[0]
    assert other not in tries
    assert len({request.body for request in api.requests}) == 1
    assert len(pauses) == 2


def test_actions_that_must_not_be_repeated_have_an_idempotency_key(api: ScriptedServer, client: Client) -> None:
    api.always = ok(state())
    client.retry("a")
    client.retry("a")
    client.resume("a", "yes")
    assert len({*keys(api)} - {None}) == 3
    assert api.requests[-1].json == {"user_input": "yes"}
    client.resume("a", "yes", request="q")
    assert api.requests[-1].json == {"answers": {"q": {"input": "yes"}}}
    client.approve("a", "r", comment="fine")
    assert api.requests[-1].json == {"answers": {"r": {"approve": True, "comment": "fine"}}}
    client.deny("a", "r")
    assert api.requests[-1].json == {"answers": {"r": {"approve": False}}}
    client.say("a", "hurry")
    assert (api.targets[-1], api.requests[-1].json) == ("/agent/runs/a/messages", {"text": "hurry"})
    assert len({*keys(api)} - {None}) == 7
    client.interrupt("a")
    assert api.targets[-1] == "/agent/runs/a/interrupt"
    client.start("a")
    client.cancel("a")
    assert api.targets[-2:] == ["/agent/runs/a/start", "/agent/runs/a/cancel"]


def test_a_given_idempotency_key_is_sent(api: ScriptedServer, client: Client) -> None:
    api.always = ok(run())
    client.create_run(prompt="x", idempotency_key="report-2026")
    assert keys(api) == ["report-2026"]


@pytest.mark.parametrize("lost", [reset, problem(503, "the store is away"), page(502)])
def test_the_client_gives_up_after_the_last_attempt(
    api: ScriptedServer, client: Client, pauses: list[float], lost: object
) -> None:
    api.always = lost  # type: ignore[assignment]
    with pytest.raises(Unreachable):
        client.queue()
    assert len(api.requests) == ATTEMPTS
    assert len(pauses) == ATTEMPTS - 1


@pytest.mark.parametrize(
    ("header", "min_pause_s"),
    [("1", 1), ("7", 7), ("100000", 30), ("9" * 5000, 30), ("soon", 0), ("²", 0), ("-1", 0), ("", 0)],
)
def test_retry_after_delays_the_next_attempt(
    api: ScriptedServer, client: Client, pauses: list[float], header: str, min_pause_s: float
) -> None:
    api.then(page(503, retry_after=header), ok(run()))
    client.get_run("a")
    (pause,) = pauses
    assert min_pause_s <= pause <= max(min_pause_s, 5)


@pytest.mark.parametrize(("seconds", "min_pause_s"), [(3, 3), (100_000, 30), (-100, 0), (0, 0)])
@pytest.mark.parametrize("clock_error_s", [0, 7200, -7200])
def test_retry_after_may_be_a_date_by_the_clock_of_the_server(
    api: ScriptedServer, client: Client, pauses: list[float], seconds: int, min_pause_s: float, clock_error_s: int
) -> None:
    now = time.time() + clock_error_s
    api.then(
        page(503, retry_after=formatdate(now + seconds, usegmt=True), date=formatdate(now, usegmt=True)), ok(run())
    )
    client.get_run("a")
    (pause,) = pauses
    assert min_pause_s <= pause <= max(min_pause_s, 5)


@pytest.mark.parametrize(
    "form", ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
)
def test_the_three_forms_of_a_date_mean_the_same_in_every_zone(monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        assert _http_date(form) == 784111777
    finally:
        monkeypatch.undo()
        time.tzset()


def test_retry_after_as_a_date_without_a_clock_of_the_server(
    api: ScriptedServer, client: Client, pauses: list[float]
) -> None:
    api.then(page(429, retry_after=formatdate(time.time() + 25, usegmt=True)), ok(run()))
    client.get_run("a")
    (pause,) = pauses
    assert 15 <= pause <= 25


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 413, 415, 422, 500, 501])
def test_a_refusal_is_not_retried(api: ScriptedServer, client: Client, status: int) -> None:
    api.then(problem(status, "it may not be", field="$.plan[0]", run_status="running"))
    with pytest.raises(ApiError) as caught:
        client.start("a")
    assert len(api.requests) == 1
    error = caught.value
    assert (error.status, error.detail, error.kind) == (status, "it may not be", "urn:swissbrain:problem:test")
    assert (error.field, error.run_status) == ("$.plan[0]", "running")
    assert str(error) == "it may not be ($.plan[0])"


@pytest.mark.parametrize("status", [422, 503])
def test_every_error_message_is_one_line(api: ScriptedServer, client: Client, pauses: list[float], status: int) -> None:
    api.always = problem(status, "first\r\nsecond\u2028third", field="$.a\nb")
    with pytest.raises((ApiError, Unreachable), match=r"^first second third"):
        client.queue()
    with pytest.raises((ApiError, Unreachable)) as caught:
        client.resume("a", "b")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("answer", [page(404), reply(403, b"\xff\xfe"), ok({"message": "Forbidden"}, 403), ok([], 400)])
def test_an_error_response_of_a_proxy_is_an_api_error(api: ScriptedServer, client: Client, answer: object) -> None:
    api.then(answer)  # type: ignore[arg-type]
    with pytest.raises(ApiError, match=f"^{re.escape(api.url)} answered with HTTP status 40[034]$") as caught:
        client.queue()
    assert (caught.value.kind, caught.value.field, caught.value.run_status) == ("", None, None)


def test_a_silent_server_times_out(
    api: ScriptedServer, connect: Connect, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("_sync", "_async"):
        monkeypatch.setattr(f"swissbrain.{kind}.transport.ATTEMPTS", 2)
    api.always = silent
    with (
        connect(api.url, TOKEN, timeout_s=0.2) as client,
        pytest.raises(Unreachable, match=r"^cannot reach the API at http.*: timed out$"),
    ):
        client.queue()
    wait_until(lambda: len(api.requests) == 2, "the server has read both requests")


def test_the_base_url_may_have_a_path(api: ScriptedServer, connect: Connect) -> None:
    api.always = ok(run())
    with connect(f"{api.url}/of/the/api/", TOKEN) as client:
        client.get_run("a")
    assert api.targets == ["/of/the/api/agent/runs/a"]


def test_a_client_may_be_shared_between_threads(api: ScriptedServer, client: Client) -> None:
    api.always = ok(run())
    with ThreadPoolExecutor(8) as pool:
        made = [*pool.map(lambda number: client.create_run(prompt=str(number)).run_id, range(40))]
    assert made == ["run_1"] * 40
    assert len({*keys(api)}) == 40
    assert {request.json["prompt"] for request in api.requests} == {str(number) for number in range(40)}


def test_one_client_follows_any_number_of_logs(api: ScriptedServer, connect: Connect) -> None:
    """Follow more logs than httpx allows connections by default, and still send another request."""
    count = 120
    following = threading.Barrier(count + 1)

    def follow(client: Client) -> int:
        items = client.events("run_1")
        next(items)
        following.wait(60)
        following.wait(60)
        return len([*items])

    def hold(wire: Wire) -> None:
        going_on.wait(60)
        wire.send(b"")

    going_on = threading.Event()
    api.always = sse(event(1), hold, end(1))
    with connect(api.url, TOKEN, timeout_s=20, patience_s=0) as client, ThreadPoolExecutor(count) as pool:
        followers = [pool.submit(follow, client) for _ in range(count)]
        following.wait(60)
        api.always = ok(run())
        assert client.get_run("run_1").run_id == "run_1"
        going_on.set()
        following.wait(60)
        assert [each.result() for each in followers] == [0] * count


def test_unsendable_arguments_are_rejected_without_a_request(api: ScriptedServer, client: Client) -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    for ask in (
        lambda: client.create_run(prompt="\ud800"),
        lambda: client.create_run(plan=[{"tool": "x", "args": {"deep": deep}}]),
        lambda: client.create_run(prompt="x", idempotency_key="é"),
        lambda: client.create_run(prompt="x", idempotency_key="a\r\nX: y"),
        lambda: client.get_run("a" * 100_000),
        lambda: [*client.events("a" * 100_000)],
        lambda: [*client.runs(status="\ud800")],
    ):
        with pytest.raises(ClientError) as caught:
            ask()
        assert type(caught.value) is ClientError
        assert "\n" not in str(caught.value)
    assert api.requests == []


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_does_not_have_are_rejected_by_their_place(
    api: ScriptedServer, client: Client, number: float
) -> None:
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: client.create_run(prompt="x", timeout_s=number), r"\$\.timeout_s"),
        (lambda: client.create_run(plan=[PlanStep(tool="shell", timeout_s=number)]), r"\$\.plan\[0\]\.timeout_s"),
        (lambda: client.fork("a", 1, plan=[{"tool": "x", "args": {"a": (1, number)}}]), r"\$\.plan\[0\]\.args\.a\[1\]"),
    ]
    for ask, place in cases:
        with pytest.raises(ClientError, match=f"{place} is -?(nan|inf), which is not a number of JSON"):
            ask()
    assert api.requests == []


def test_plans_may_be_any_mappings(api: ScriptedServer, client: Client) -> None:
    api.always = ok(run(), 201)
    step = MappingProxyType({"tool": "message", "args": MappingProxyType({"text": "x"})})
    client.create_run(plan=(step, PlanStep(tool="shell")), metadata=MappingProxyType({"a": "b"}))
    assert api.requests[0].json == {
        "plan": [{"tool": "message", "args": {"text": "x"}}, {"tool": "shell"}],
        "metadata": {"a": "b"},
        "start": True,
    }
