"""Filters of a log: by step, stream and type, in pages and in streams that are resumed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from httpx_sse import ServerSentEvent, aconnect_sse
from msgspec import json

from edge_api.logs import pages as log_pages
from edge_api.routes import logs as log_routes
from infra.contract.log import NewEvent
from infra.contract.queue import Lease
from infra.contract.states import Status
from infra.redis_tcp import RedisTcp
from tests.edge.stack import Edge, SimulatedWorker, create, numbers


def output(step: int, stream: str = "stdout", text: str = "x") -> NewEvent:
    return NewEvent(ts=1, type="tool.output", step=step, data={"stream": stream, "text": text})


def message(step: int | None = None) -> NewEvent:
    return NewEvent(ts=1, type="message", step=step, data={"text": "hi", "stream": "stderr"})


async def mixed(http: httpx.AsyncClient, worker: SimulatedWorker) -> tuple[str, Lease]:
    """Return a run with the events 1 `run.started`, then 2 to 9 in batches of two, and its lease."""
    run_id = await create(http)
    lease = await worker.claim()
    await worker.emit(lease, output(0), output(0, "stderr"))
    await worker.emit(lease, message(0), output(1))
    await worker.emit(lease, output(1), output(1, "stderr"))
    await worker.emit(lease, message(1), output(2, "stderr"))
    return run_id, lease


CASES: list[tuple[dict[str, str], list[int]]] = [
    ({"step": "1"}, [5, 6, 7, 8]),
    ({"step": "0,2"}, [2, 3, 4, 9]),
    ({"step": "199"}, []),
    ({"stream": "stderr"}, [3, 7, 9]),
    ({"stream": "stdout,stderr"}, [2, 3, 5, 6, 7, 9]),
    ({"type": "message"}, [4, 8]),
    ({"type": "message,run.started,run.finished"}, [1, 4, 8, 10]),
    ({"step": "1", "stream": "stdout"}, [5, 6]),
    ({"step": "1,2", "stream": "stderr", "type": "tool.output"}, [7, 9]),
    ({"stream": "stderr", "type": "message"}, []),
]


@pytest.mark.parametrize(("filters", "expected"), CASES)
async def test_pages_in_both_directions_have_the_events_that_match_all_filters(
    ada: httpx.AsyncClient, worker: SimulatedWorker, filters: dict[str, str], expected: list[int]
) -> None:
    run_id, lease = await mixed(ada, worker)
    await worker.finish(lease)
    url = f"/agent/logs/{run_id}"
    for limit in (1, 2, 100):
        found: list[int] = []
        body: dict[str, Any] = {"next_after": 0, "done": False}
        while not body["done"]:
            params = {**filters, "after": body["next_after"], "limit": limit}
            body = (await ada.get(url, params=params)).json()
            assert len(body["events"]) <= limit
            assert "gap" not in body
            found += [event["seq"] for event in body["events"]]
        assert (found, body["next_after"]) == (expected, 10)
        body = (await ada.get(url, params={**filters, "tail": limit})).json()
        assert [event["seq"] for event in body["events"]] == expected[-limit:]
        found = [event["seq"] for event in body["events"]]
        while body["prev_before"]:
            body = (await ada.get(url, params={**filters, "before": body["prev_before"], "limit": limit})).json()
            found = [event["seq"] for event in body["events"]] + found
        assert found == expected


async def test_a_page_of_a_run_with_few_matches_says_where_to_go_on(
    ada: httpx.AsyncClient, worker: SimulatedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_pages, "MAX_READS", 2)
    run_id = await create(ada)
    lease = await worker.claim()
    for number in range(300):
        await worker.emit(lease, message(5 if number == 290 else 0))
    await worker.finish(lease)
    answers: list[dict[str, Any]] = []
    after = 0
    while not answers or not answers[-1]["done"]:
        answers.append((await ada.get(f"/agent/logs/{run_id}", params={"step": "5", "after": after})).json())
        after = answers[-1]["next_after"]
    assert [body["next_after"] for body in answers] == [128, 256, 302]
    assert [[event["seq"] for event in body["events"]] for body in answers] == [[], [], [292]]
    assert {body["last_seq"] for body in answers} == {302}


@asynccontextmanager
async def filtered(
    http: httpx.AsyncClient, run_id: str, after: int | None = None, **params: Any
) -> AsyncIterator[AsyncIterator[ServerSentEvent]]:
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    async with aconnect_sse(http, "GET", f"/agent/logs/{run_id}/stream", params=params, headers=headers) as source:
        assert source.response.status_code == 200, source.response.status_code
        yield source.aiter_sse()


async def everything(http: httpx.AsyncClient, run_id: str, **params: Any) -> list[ServerSentEvent]:
    async with filtered(http, run_id, **params) as events:
        return [event async for event in events]


@pytest.mark.parametrize(("filters", "expected"), CASES)
async def test_streams_have_the_same_events_stored_and_live(
    ada: httpx.AsyncClient, worker: SimulatedWorker, filters: dict[str, str], expected: list[int]
) -> None:
    run_id, lease = await mixed(ada, worker)
    live = asyncio.create_task(everything(ada, run_id, **filters))
    await asyncio.sleep(0.1)
    await worker.finish(lease)
    for events in (await live, await everything(ada, run_id, **filters)):
        assert numbers(events) == expected
        assert events[-1].event == "end"
        assert json.decode(events[-1].data)["last_seq"] == 10


async def test_a_stream_with_filters_resumes_after_its_last_id_without_repeating(
    ada: httpx.AsyncClient, worker: SimulatedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_routes, "SKIPPED_EVERY_S", 0.0)
    run_id, lease = await mixed(ada, worker)
    await worker.finish(lease)
    seen: list[int] = []
    ids: list[int] = []
    ended = False
    while not ended:
        # One event of each connection, as if each were lost.
        async with filtered(ada, run_id, ids[-1] if ids else None, stream="stderr") as events:
            item = await anext(events)
            ended = item.event == "end"
            if not ended:
                ids.append(int(item.id))
                seen += numbers([item])
    assert seen == [3, 7, 9]
    assert ids == sorted(set(ids))
    assert ids[-1] < 10  # the client that has all events is told so by 204, and would miss `end`


async def test_events_that_are_filtered_out_move_the_last_id_of_a_live_stream(
    ada: httpx.AsyncClient, worker: SimulatedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_routes, "SKIPPED_EVERY_S", 0.0)
    run_id = await create(ada)
    lease = await worker.claim()
    async with filtered(ada, run_id, step="7") as events:
        item = await anext(events)
        assert (item.event, item.id, json.decode(item.data)) == ("skipped", "1", {"last": 1})
        await worker.emit(lease, message(0), message(1))
        item = await anext(events)
        assert (item.event, item.id) == ("skipped", "3")
        await worker.emit(lease, message(0), message(7), message(1))
        both = [await anext(events), await anext(events)]
        assert [(each.event, each.id) for each in both] == [("message", "5"), ("skipped", "6")]
        await worker.finish(lease)
        assert [each.event async for each in events] == ["end"]


async def test_skipped_events_are_announced_once_a_second_at_most(
    ada: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    run_id = await create(ada)
    lease = await worker.claim()
    async with filtered(ada, run_id, step="7") as events:
        for _ in range(50):
            await worker.emit(lease, message(0))
        await worker.finish(lease)
        seen = [each.event async for each in events]
    assert seen[-1] == "end"
    assert len(seen) < 10


@pytest.mark.parametrize("tail", [1, 4, 9, 100])
async def test_a_stream_begins_with_the_last_events_and_goes_on_live(
    ada: httpx.AsyncClient, worker: SimulatedWorker, tail: int
) -> None:
    run_id, lease = await mixed(ada, worker)
    async with filtered(ada, run_id, tail=tail) as events:
        seen = [await anext(events) for _ in range(min(tail, 9))]
        await worker.emit(lease, message())
        await worker.finish(lease)
        seen += [event async for event in events]
    assert numbers(seen) == [*range(1, 12)][-tail - 2 :]
    # An EventSource repeats its address, with `tail`, and adds the last id: the id decides.
    async with filtered(ada, run_id, 9, tail=tail) as events:
        assert numbers([event async for event in events]) == [10, 11]


async def test_a_stream_begins_with_the_last_events_that_match(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    run_id, lease = await mixed(ada, worker)
    await worker.finish(lease)
    assert numbers(await everything(ada, run_id, tail=2, stream="stderr")) == [7, 9]
    none = await everything(ada, run_id, tail=2, step="9")
    assert (numbers(none), none[-1].event) == ([], "end")
    polyfill = await everything(ada, run_id, tail=1, lastEventId="7", stream="stderr")
    assert numbers(polyfill) == [9]


async def test_a_filtered_stream_reports_gaps(ada: httpx.AsyncClient, worker: SimulatedWorker, redis: RedisTcp) -> None:
    run_id, lease = await mixed(ada, worker)
    await worker.finish(lease, Status.FAILED)
    await redis.command("XDEL", f"run:{run_id}:log", "5-0")
    events = await everything(ada, run_id, step="1")
    assert [each.event for each in events if each.event != "skipped"] == ["gap", *["message"] * 3, "end"]
    assert numbers(events) == [6, 7, 8]


ALLOWED_TYPES = "tool.output"


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("step", "-1", "0 to 199"),
        ("step", "200", "0 to 199"),
        ("step", "one", "0 to 199"),
        ("step", "", "0 to 199"),
        ("step", "1,", "0 to 199"),
        ("step", "1, 2", "0 to 199"),
        ("step", "٣", "0 to 199"),
        ("stream", "stdin", "stdout, stderr"),
        ("stream", "", "stdout, stderr"),
        ("stream", "stdout,,stderr", "stdout, stderr"),
        ("type", "tool", ALLOWED_TYPES),
        ("type", "tool.output,nothing", ALLOWED_TYPES),
        ("type", "x" * 1001, "1000"),
        ("tail", "0", "1"),
        ("tail", "1001", "1000"),
        ("tail", "all", "int"),
    ],
)
@pytest.mark.parametrize("end", ["", "/stream"])
async def test_bad_values_are_refused_with_the_allowed_ones(
    ada: httpx.AsyncClient, edge: Edge, end: str, name: str, value: str, allowed: str
) -> None:
    answer = await ada.get(f"/agent/logs/{await create(ada)}{end}", params={name: value})
    assert (answer.status_code, answer.json()["field"]) == (422, name)
    assert allowed in answer.json()["detail"]


@pytest.mark.parametrize(
    ("end", "params", "field"),
    [
        ("", {"before": 0}, "before"),
        ("", {"tail": 1, "before": 5}, "before"),
        ("", {"after": 1, "before": 5}, "before"),
        ("", {"tail": 1, "after": 5}, "tail"),
        ("/stream", {"tail": 1, "after": 5}, "tail"),
        ("/stream", {"before": 5}, "before"),
    ],
)
async def test_only_one_beginning_may_be_given(
    ada: httpx.AsyncClient, edge: Edge, end: str, params: dict[str, int], field: str
) -> None:
    answer = await ada.get(f"/agent/logs/{await create(ada)}{end}", params=params)
    assert answer.status_code == 422
    assert field in answer.text
