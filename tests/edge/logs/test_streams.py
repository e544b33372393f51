"""Live logs: replayed and followed without loss, repetition or polling."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from httpx_sse import ServerSentEvent
from msgspec import json

from edge_api.logs import reader as log_reader
from edge_api.settings import ApiSettings
from infra.contract.states import Status
from infra.settings import RedisRestSettings
from tests.edge.stack import (
    Edge,
    Files,
    SimulatedWorker,
    client,
    create,
    follow,
    note,
    numbers,
    serve,
    stream,
)
from tests.support.waiting import until


async def take(events: AsyncIterator[ServerSentEvent], count: int) -> list[ServerSentEvent]:
    return [await anext(events) for _ in range(count)]


async def all_closed(edge: Edge) -> None:
    """Wait until no stream and no subscription is open."""

    async def nothing_open() -> bool:
        return edge.streams == 0 and edge.feed.open == 0

    await until(nothing_open, "streams and subscriptions are closed")


async def test_a_client_that_follows_from_the_start_gets_all_events(
    ada: httpx.AsyncClient, edge: Edge, worker: SimulatedWorker
) -> None:
    run_id = await create(ada)
    async with stream(ada, run_id) as events:
        lease = await worker.claim()
        (started,) = await take(events, 1)
        assert (started.event, started.id) == ("message", "1")
        data = json.decode(started.data)
        assert data.keys() == {"seq", "ts", "type", "step", "data"}
        assert (data["seq"], data["type"]) == (1, "run.started")
        await worker.emit(lease, note(1, text="line one\nline two"), note(2))
        second, third = await take(events, 2)
        assert json.decode(second.data)["data"] == {"n": 1, "text": "line one\nline two"}
        assert third.id == "3"
        await worker.finish(lease)
        last, end = await take(events, 2)
        assert json.decode(last.data)["type"] == "run.finished"
        assert (end.event, json.decode(end.data)) == ("end", {"status": "succeeded", "last_seq": 4})
        assert [event async for event in events] == []
    await all_closed(edge)


async def test_the_stream_begins_with_its_retry_time_and_headers(ada: httpx.AsyncClient) -> None:
    run_id = await create(ada)
    async with ada.stream("GET", f"/agent/logs/{run_id}/stream") as answer:
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["cache-control"] == "no-store, no-transform"
        assert answer.headers["x-accel-buffering"] == "no"
        lines = answer.aiter_lines()
        assert await anext(lines) == "retry: 1000"
        assert await anext(lines) == ": ping"


async def test_a_late_joiner_gets_the_same_events(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    run_id = await create(ada)
    lease = await worker.claim()
    async with stream(ada, run_id) as live:
        for number in range(5):
            await worker.emit(lease, note(number), note(number))
        async with stream(ada, run_id) as late:
            replayed = await take(late, 11)
            await worker.finish(lease)
            replayed += [event async for event in late]
        seen = [event async for event in live]
    assert [(event.id, event.event, event.data) for event in seen] == [
        (event.id, event.event, event.data) for event in replayed
    ]
    assert numbers(seen) == list(range(1, 13))
    after_the_end = await follow(ada, run_id)
    assert [event.data for event in after_the_end] == [event.data for event in seen]


async def test_a_reload_at_every_event_loses_and_repeats_nothing(
    ada: httpx.AsyncClient, edge: Edge, worker: SimulatedWorker
) -> None:
    run_id = await create(ada)
    lease = await worker.claim()
    await worker.emit(lease, *(note(number) for number in range(6)))
    seen: list[ServerSentEvent] = []
    for attempt in range(10):
        if attempt >= 7:
            await worker.emit(lease, note(attempt))
        async with stream(ada, run_id, after=int(seen[-1].id) if seen else None) as events:
            seen += await take(events, 1)
    await worker.finish(lease)
    seen += await follow(ada, run_id, after=int(seen[-1].id))
    assert numbers(seen) == list(range(1, 12))
    await all_closed(edge)


async def test_a_client_that_has_all_events_gets_204(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    run_id = await create(ada)
    await worker.complete()
    url = f"/agent/logs/{run_id}/stream"
    answer = await ada.get(url, headers={"Last-Event-ID": "5"})
    assert (answer.status_code, answer.content) == (204, b"")
    assert (await ada.get(url, params={"after": 5})).status_code == 204
    assert (await ada.get(url, params={"after": 4})).status_code == 200


async def test_a_finished_run_needs_no_subscription(
    ada: httpx.AsyncClient, edge: Edge, worker: SimulatedWorker
) -> None:
    run_id = await create(ada)
    await worker.complete()
    assert numbers(await follow(ada, run_id)) == [1, 2, 3, 4, 5]
    assert edge.feed.opened == 0


async def test_the_log_of_a_retried_run_continues(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    run_id = await create(ada)
    await worker.complete(events=1, status=Status.FAILED)
    assert (await ada.post(f"/agent/runs/{run_id}/retry")).status_code == 200
    async with stream(ada, run_id) as events:
        seen = await take(events, 4)
        assert [json.decode(event.data)["type"] for event in seen][2:] == ["run.finished", "run.retried"]
        await worker.complete(events=1)
        seen += [event async for event in events]
    assert numbers(seen) == list(range(1, 8))
    assert json.decode(seen[-1].data) == {"status": "succeeded", "last_seq": 7}


async def test_cancelling_a_queued_run_ends_its_stream(ada: httpx.AsyncClient) -> None:
    run_id = await create(ada)
    async with stream(ada, run_id) as events:
        await ada.post(f"/agent/runs/{run_id}/cancel")
        seen = [event async for event in events]
    assert numbers(seen) == [1]
    assert json.decode(seen[-1].data) == {"status": "cancelled", "last_seq": 1}


async def test_events_that_no_longer_exist_are_a_gap(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    run_id = await create(ada)
    await worker.complete(events=4)
    await worker.redis.command("XTRIM", f"run:{run_id}:log", "MINID", "4-0")
    seen = await follow(ada, run_id)
    assert (seen[0].event, seen[0].id, json.decode(seen[0].data)) == ("gap", "3", {"first": 1, "last": 3})
    assert numbers(seen) == [4, 5, 6]
    assert seen[-1].event == "end"
    assert numbers(await follow(ada, run_id, after=3)) == [4, 5, 6]
    await worker.redis.command("DEL", f"run:{run_id}:log")
    gap, end = await follow(ada, run_id, after=2)
    assert (gap.event, json.decode(gap.data)) == ("gap", {"first": 3, "last": 6})
    assert end.event == "end"


async def test_clients_of_one_run_share_one_subscription(
    ada: httpx.AsyncClient, edge: Edge, worker: SimulatedWorker
) -> None:
    runs = [await create(ada) for _ in range(3)]
    tasks = [asyncio.create_task(follow(ada, run_id)) for run_id in runs for _ in range(8)]

    async def all_there() -> bool:
        return edge.streams == 24 and edge.feed.open == 3

    await until(all_there, "all clients are connected")
    assert edge.feed.opened == 3
    channels = [f"agent:logs:{run_id}" for run_id in runs]

    async def subscribed() -> bool:
        return await worker.redis.command("PUBSUB", "NUMSUB", *channels) == [
            part for channel in channels for part in (channel, 1)
        ]

    await until(subscribed, "each channel has one subscriber")
    for _ in runs:
        await worker.complete(events=20)
    for seen in await asyncio.gather(*tasks):
        assert numbers(seen) == list(range(1, 23))
        assert seen[-1].event == "end"
    await all_closed(edge)
    assert edge.feed.opened == 3


async def test_a_client_that_disconnects_leaves_nothing_open(ada: httpx.AsyncClient, edge: Edge) -> None:
    run_id = await create(ada)
    tasks = asyncio.all_tasks()
    for _ in range(3):
        async with stream(ada, run_id), stream(ada, run_id):
            pass
        await all_closed(edge)
    async with client(edge, "ada") as own, stream(own, run_id):
        pass
    await all_closed(edge)

    async def as_before() -> bool:
        return len(asyncio.all_tasks()) <= len(tasks) + 1  # the server's task for the last keep-alive connection

    await until(as_before, "no task is left")


async def test_an_idle_reader_sends_no_command(
    ada: httpx.AsyncClient, worker: SimulatedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its last read-back, a reader only waits for messages."""
    monkeypatch.setattr(log_reader, "QUIET_S", 0.0)
    run_id = await create(ada)
    async with ada.stream("GET", f"/agent/logs/{run_id}/stream") as answer:
        lines = answer.aiter_lines()
        for _ in range(3):
            while await anext(lines) != ": ping":
                pass
        before = await calls(worker)
        for _ in range(2):
            while await anext(lines) != ": ping":
                pass
        assert await calls(worker) == before


async def calls(worker: SimulatedWorker) -> dict[str, str]:
    """Return the number of calls of each command, except this test's and the gateway's own."""
    info = str(await worker.redis.command("INFO", "commandstats"))
    lines = [line.partition(":") for line in info.splitlines() if line.startswith("cmdstat_")]
    own = {"cmdstat_info", "cmdstat_ping"}
    return {name: rest.partition(",")[0] for name, _, rest in lines if name not in own}


async def test_a_stream_ends_after_its_hold_time_and_the_next_one_continues(
    worker: SimulatedWorker, rest_settings: RedisRestSettings
) -> None:
    settings = ApiSettings(stream_hold_s=0.3)
    async with serve(rest_settings, Files(), settings) as edge, client(edge, "ada") as http:
        run_id = await create(http)
        seen: list[ServerSentEvent] = []

        async def all_seen(last: int) -> bool:
            """Follow once more. On a busy machine a stream may end before it has begun to replay."""
            seen.extend(await follow(http, run_id, after=len(numbers(seen))))
            return len(numbers(seen)) >= last

        lease = await worker.claim()
        await worker.emit(lease, note(1))
        await until(lambda: all_seen(2), "the streams have brought what there is")
        assert numbers(seen) == [1, 2]
        assert all(event.event == "message" for event in seen)
        await worker.finish(lease)
        await until(lambda: all_seen(3), "the streams have brought the rest")
        assert numbers(seen) == [1, 2, 3]
        assert [event.event for event in seen[:3]] == ["message"] * 3


async def test_a_shutdown_ends_the_streams(worker: SimulatedWorker, rest_settings: RedisRestSettings) -> None:
    async with serve(rest_settings, Files()) as edge, client(edge, "ada") as http:
        run_id = await create(http)
        await worker.claim()
        async with stream(http, run_id) as events:
            assert numbers(await take(events, 1)) == [1]
            edge.server.should_exit = True
            assert [event async for event in events] == []


async def test_a_head_request_for_a_stream_returns_immediately(ada: httpx.AsyncClient, edge: Edge) -> None:
    run_id = await create(ada)
    answer = await ada.head(f"/agent/logs/{run_id}/stream")
    assert (answer.status_code, answer.content) == (200, b"")
    assert edge.streams == 0
