"""Requests: what is sent, what is tried again, and what an answer means."""

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType

import pytest

from swissbrain import ApiError, Client, ClientError, Unreachable
from swissbrain.models import PlanStep
from swissbrain.transport import ATTEMPTS
from tests.client.stand_in import (
    TOKEN,
    StandIn,
    Wire,
    cut,
    end,
    event,
    half,
    hang_up,
    ok,
    page,
    problem,
    reply,
    run,
    silent,
    sse,
    state,
)


def keys(api: StandIn) -> list[str | None]:
    return [request.headers.get("idempotency-key") for request in api.requests]


def test_a_new_run_is_sent_as_it_was_wanted_and_nothing_else(api: StandIn, client: Client) -> None:
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


@pytest.mark.parametrize("lost", [cut, hang_up, half(), problem(503, "later"), page(502), page(504), page(429)])
def test_a_lost_answer_is_asked_for_again_with_the_same_key(
    api: StandIn, client: Client, pauses: list[float], lost: object
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


def test_every_action_that_must_not_be_done_twice_has_a_key(api: StandIn, client: Client) -> None:
    api.always = ok(state())
    client.retry("a")
    client.retry("a")
    client.resume("a", "yes")
    assert len({*keys(api)} - {None}) == 3
    assert api.requests[-1].json == {"user_input": "yes"}
    client.start("a")
    client.cancel("a")
    assert api.targets[-2:] == ["/agent/runs/a/start", "/agent/runs/a/cancel"]


def test_the_callers_key_is_taken(api: StandIn, client: Client) -> None:
    api.always = ok(run())
    client.create_run(prompt="x", idempotency_key="report-2026")
    assert keys(api) == ["report-2026"]


@pytest.mark.parametrize("lost", [cut, problem(503, "the store is away"), page(502)])
def test_it_gives_up_in_the_end(api: StandIn, client: Client, pauses: list[float], lost: object) -> None:
    api.always = lost  # type: ignore[assignment]
    with pytest.raises(Unreachable):
        client.queue()
    assert len(api.requests) == ATTEMPTS
    assert len(pauses) == ATTEMPTS - 1


@pytest.mark.parametrize(
    ("said", "least"), [("1", 1), ("7", 7), ("100000", 30), ("9" * 5000, 30), ("soon", 0), ("²", 0), ("-1", 0), ("", 0)]
)
def test_the_api_may_say_when_to_come_back(
    api: StandIn, client: Client, pauses: list[float], said: str, least: float
) -> None:
    api.then(page(503, retry_after=said), ok(run()))
    client.get_run("a")
    (pause,) = pauses
    assert least <= pause <= max(least, 5)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 413, 415, 422, 500, 501])
def test_a_refusal_is_final(api: StandIn, client: Client, status: int) -> None:
    api.then(problem(status, "it may not be", field="$.plan[0]", run_status="running"))
    with pytest.raises(ApiError) as caught:
        client.start("a")
    assert len(api.requests) == 1
    error = caught.value
    assert (error.status, error.detail, error.kind) == (status, "it may not be", "urn:swissbrain:problem:test")
    assert (error.field, error.run_status) == ("$.plan[0]", "running")
    assert str(error) == "it may not be ($.plan[0])"


@pytest.mark.parametrize("status", [422, 503])
def test_every_error_is_a_line(api: StandIn, client: Client, pauses: list[float], status: int) -> None:
    api.always = problem(status, "first\r\nsecond\u2028third", field="$.a\nb")
    with pytest.raises((ApiError, Unreachable), match=r"^first second third"):
        client.queue()
    with pytest.raises((ApiError, Unreachable)) as caught:
        client.resume("a", "b")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("answer", [page(404), reply(403, b"\xff\xfe"), ok({"message": "Forbidden"}, 403), ok([], 400)])
def test_a_refusal_in_other_words_is_one_too(api: StandIn, client: Client, answer: object) -> None:
    api.then(answer)  # type: ignore[arg-type]
    with pytest.raises(ApiError, match=f"^{re.escape(api.url)} answered with HTTP status 40[034]$") as caught:
        client.queue()
    assert (caught.value.kind, caught.value.field, caught.value.run_status) == ("", None, None)


def test_a_server_that_says_nothing_is_not_waited_for_forever(
    api: StandIn, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swissbrain.transport.ATTEMPTS", 2)
    api.always = silent
    with (
        Client(api.url, TOKEN, timeout_s=0.2) as client,
        pytest.raises(Unreachable, match=r"^cannot reach the API at http.*: timed out$"),
    ):
        client.queue()
    assert len(api.requests) == 2


def test_an_address_may_have_a_path(api: StandIn) -> None:
    api.always = ok(run())
    with Client(f"{api.url}/of/the/api/", TOKEN) as client:
        client.get_run("a")
    assert api.targets == ["/of/the/api/agent/runs/a"]


def test_it_may_be_shared_between_threads(api: StandIn, client: Client) -> None:
    api.always = ok(run())
    with ThreadPoolExecutor(8) as pool:
        made = [*pool.map(lambda number: client.create_run(prompt=str(number)).run_id, range(40))]
    assert made == ["run_1"] * 40
    assert len({*keys(api)}) == 40
    assert {request.json["prompt"] for request in api.requests} == {str(number) for number in range(40)}


def test_any_number_of_logs_may_be_followed_with_one(api: StandIn) -> None:
    """More than the HTTP library's own limit, and there is a connection left for something else."""
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
    with Client(api.url, TOKEN, timeout_s=20, patience_s=0) as client, ThreadPoolExecutor(count) as pool:
        followers = [pool.submit(follow, client) for _ in range(count)]
        following.wait(60)
        api.always = ok(run())
        assert client.get_run("run_1").run_id == "run_1"
        going_on.set()
        following.wait(60)
        assert [each.result() for each in followers] == [0] * count


def test_a_proxy_that_cannot_be_used_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    with pytest.raises(ClientError, match=r"^the proxy that the environment names cannot be used: .*SOCKS"):
        Client("http://h", TOKEN)


def test_what_cannot_be_sent_is_not(api: StandIn, client: Client) -> None:
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


def test_any_mapping_will_do(api: StandIn, client: Client) -> None:
    api.always = ok(run(), 201)
    step = MappingProxyType({"tool": "message", "args": MappingProxyType({"text": "x"})})
    client.create_run(plan=(step, PlanStep(tool="shell")), metadata=MappingProxyType({"a": "b"}))
    assert api.requests[0].json == {
        "plan": [{"tool": "message", "args": {"text": "x"}}, {"tool": "shell"}],
        "metadata": {"a": "b"},
        "start": True,
    }
