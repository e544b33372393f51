"""Long poll, for hosts that cannot stream: repeated polls return the events of a stream."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import pytest
import pytest_asyncio
from httpx_sse import ServerSentEvent, aconnect_sse

from edge_api.logs.items import Item
from edge_api.logs.limits import ENOUGH_BYTES
from edge_api.logs.longpoll import LongPoll
from edge_api.logs.sse import LogStreams
from edge_api.settings import ApiSettings
from infra.contract.errors import StoreRejected
from infra.contract.log import Event
from infra.contract.runs import RunSpec
from infra.contract.states import Status
from infra.redis_tcp import RedisTcp
from infra.settings import RedisRestSettings
from tests.edge.stack import (
    Edge,
    Files,
    SimulatedWorker,
    client,
    create,
    follow,
    follow_to_the_end,
    note,
    numbers,
    serve,
)
from tests.support.waiting import until

LONG = ApiSettings(log_mode="longpoll")
SHORT = ApiSettings(log_mode="longpoll", longpoll_wait_s=0.2)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def running_edge(rest_settings: RedisRestSettings) -> AsyncIterator[Edge]:
    """The API of this file, in the mode `longpoll`."""
    async with serve(rest_settings, Files(), LONG) as edge:
        yield edge


async def test_polls_return_all_events_once_and_in_order(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    run_id = await create(ada)
    polling = asyncio.create_task(follow_to_the_end(ada, run_id))
    lease = await worker.claim()
    for number in range(2, 40):
        await worker.emit(lease, note(number))
    await worker.finish(lease)
    seen = await polling
    assert numbers(seen) == list(range(1, 41))
    assert [event.event for event in seen if event.event != "message"] == ["end"]


async def test_a_poll_waits_for_the_first_event_and_sets_a_short_retry_time(
    ada: httpx.AsyncClient, edge: Edge, worker: SimulatedWorker
) -> None:
    run_id = await create(ada)
    polling = asyncio.create_task(ada.get(f"/agent/logs/{run_id}/stream"))

    async def waiting() -> bool:
        return edge.feed.open == 1

    await until(waiting, "the poll waits")
    assert not polling.done()
    await worker.claim()
    answer = await polling
    assert answer.text.startswith("retry: 100\nid: 1\ndata: {")
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store, no-transform"
    assert (edge.feed.open, edge.streams) == (0, 0)


async def test_a_late_joiner_and_a_reload_at_every_event_get_the_same_events(
    ada: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    run_id = await create(ada)
    await worker.complete(events=8)
    whole = await follow(ada, run_id)
    assert numbers(whole) == list(range(1, 11))
    assert whole[-1].event == "end"
    for after in range(10):
        seen = await follow(ada, run_id, after)
        assert [event.data for event in seen] == [event.data for event in whole[after:]]
    url = f"/agent/logs/{run_id}/stream"
    assert (await ada.get(url, headers={"Last-Event-ID": "10"})).status_code == 204
    async with aconnect_sse(ada, "GET", f"{url}?after=9") as source:
        assert numbers([event async for event in source.aiter_sse()]) == [10]


async def test_the_last_event_is_sent_together_with_the_end(
    ada: httpx.AsyncClient, edge: Edge, worker: SimulatedWorker
) -> None:
    run_id = await create(ada)
    lease = await worker.claim()
    polling = asyncio.create_task(follow(ada, run_id, after=1))

    async def waiting() -> bool:
        return edge.feed.open == 1

    await until(waiting, "the poll waits")
    await worker.finish(lease)
    last, end = await polling
    assert (last.id, end.event) == ("2", "end")


async def test_missing_last_events_are_a_gap_together_with_the_end(
    ada: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    run_id = await create(ada)
    await worker.complete(events=4)
    await worker.redis.command("DEL", f"run:{run_id}:log")
    gap, end = await follow(ada, run_id, after=2)
    assert (gap.event, gap.id, end.event) == ("gap", "6", "end")


async def test_polls_continue_after_the_first_end_of_a_retried_run(
    ada: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    run_id = await create(ada)
    await worker.complete(events=1, status=Status.FAILED)
    await ada.post(f"/agent/runs/{run_id}/retry")
    assert numbers(await follow(ada, run_id)) == [1, 2, 3, 4]
    await worker.complete(events=1)
    assert numbers(await follow_to_the_end(ada, run_id, after=4)) == [5, 6, 7]


async def test_a_poll_without_events_sets_the_normal_retry_time(
    worker: SimulatedWorker, rest_settings: RedisRestSettings
) -> None:
    async with serve(rest_settings, Files(), SHORT) as edge, client(edge, "ada") as http:
        run_id = await create(http)
        answer = await http.get(f"/agent/logs/{run_id}/stream")
        assert (answer.status_code, answer.text) == (200, "retry: 1000\n: ping\n")
        await worker.complete(events=0)
        seen: list[ServerSentEvent] = []

        async def answered() -> bool:
            """Poll once more. On a busy machine a poll may end before it has read anything."""
            seen.extend(await follow(http, run_id))
            return bool(seen)

        await until(answered, "the log is read")
        assert numbers(seen) == [1, 2]


async def test_large_logs_are_split_into_responses_of_about_a_megabyte(
    ada: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    run_id = await create(ada)
    lease = await worker.claim()
    text = "é" * 25_000
    for number in range(60):
        await worker.emit(lease, note(number, text=text))
    await worker.finish(lease)
    sizes, after, seen = [], 0, list[int]()
    while True:
        answer = await ada.get(f"/agent/logs/{run_id}/stream", headers={"Last-Event-ID": str(after)})
        if "event: end\n" in answer.text:
            break
        sizes.append(len(answer.content))
        found = [int(line[4:]) for line in answer.text.splitlines() if line.startswith("id: ")]
        seen, after = seen + found, found[-1]
        assert answer.text.startswith("retry: 100\n")
    assert len(sizes) == 2
    assert all(ENOUGH_BYTES <= size < ENOUGH_BYTES + 2 * len(text.encode()) for size in sizes)
    assert seen == list(range(1, after + 1))
    assert numbers(await follow(ada, run_id, after)) == list(range(after + 1, 63))


async def test_a_head_request_for_a_poll_returns_immediately(ada: httpx.AsyncClient, edge: Edge) -> None:
    run_id = await create(ada)
    answer = await ada.head(f"/agent/logs/{run_id}/stream")
    assert (answer.status_code, answer.content) == (200, b"")
    assert edge.feed.opened == 0


async def test_a_disconnect_and_a_shutdown_end_the_wait(
    worker: SimulatedWorker, rest_settings: RedisRestSettings
) -> None:
    async with serve(rest_settings, Files(), LONG) as edge, client(edge, "ada") as http:
        run_id = await create(http)

        async def polls(count: int) -> None:
            async def has_count() -> bool:
                return edge.streams == count

            await until(has_count, f"{count} polls are waiting")

        async with client(edge, "ada") as leaver:
            leaving = asyncio.create_task(leaver.get(f"/agent/logs/{run_id}/stream"))
            await polls(1)
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)
        await polls(0)
        staying = asyncio.create_task(http.get(f"/agent/logs/{run_id}/stream"))
        await polls(1)
        edge.server.should_exit = True
        assert (await staying).text == "retry: 1000\n: ping\n"


class Context:
    """Lambda's context of an invocation."""

    def __init__(self, left_ms: int) -> None:
        self.left_ms = left_ms

    def get_remaining_time_in_millis(self) -> int:
        return self.left_ms


class Request:
    """A poll as Mangum passes it on, over a source that the test writes itself."""

    def __init__(self, source: "Source", redis: RedisTcp) -> None:
        self.source = source
        self.store = SimulatedWorker(redis).store
        self.sent: list[Any] = []

    async def answer(self, left_ms: int) -> str:
        await self.store.create("run_1", "ada", RunSpec(prompt="x"), start=True, digest="d")

        async def wait_closed() -> None:
            self.source.subscriptions_closed = True

        async def receive() -> dict[str, str]:
            await asyncio.Event().wait()
            raise AssertionError("the event is never set")

        async def send(message: Any) -> None:
            self.sent.append(message)

        poll = LongPoll(await self.store.log("run_1"), self.source, LONG, LogStreams(wait_closed))
        await poll({"type": "http", "method": "GET", "aws.context": Context(left_ms)}, receive, send)
        return bytes(self.sent[-1]["body"]).decode()


class Source:
    """Source that gives out its batches, then fails or waits for ever."""

    def __init__(self, *batches: list[Item], failure: Exception | None = None) -> None:
        self.batches = [*batches]
        self.failure = failure
        self.closed = False
        self.subscriptions_closed = False

    async def next_batch(self) -> Sequence[Item] | None:
        if self.batches:
            return self.batches.pop(0)
        if self.failure:
            raise self.failure
        await asyncio.Event().wait()
        return None

    async def aclose(self) -> None:
        self.closed = True


async def test_the_wait_ends_before_the_end_of_the_invocation(redis: RedisTcp) -> None:
    """The wait ends two seconds before it, or after half of the remaining time. 20 s would outlast the test."""
    for left_ms in (2_100, 400, 0):
        await redis.command("FLUSHALL")
        source = Source()
        async with asyncio.timeout(10):
            assert await Request(source, redis).answer(left_ms) == "retry: 1000\n: ping\n"
        assert source.closed
        assert source.subscriptions_closed


async def test_an_event_that_may_be_the_last_is_held_back_for_the_end(redis: RedisTcp) -> None:
    source = Source([Event(seq=1, ts=1, type="run.finished")])
    answer = await Request(source, redis).answer(2_300)
    assert answer.startswith("retry: 100\nid: 1\n")
    assert source.closed


async def test_a_failure_is_an_error_only_without_events(redis: RedisTcp) -> None:
    failure = StoreRejected("ERR no")
    first: list[Item] = [Event(seq=1, ts=1, type="run.finished")]
    answer = await Request(Source(first, failure=failure), redis).answer(10_000)
    assert answer.startswith("retry: 100\nid: 1\n")
    request = Request(Source(failure=failure), redis)
    await redis.command("FLUSHALL")
    with pytest.raises(StoreRejected):
        await request.answer(10_000)
    assert request.sent == []
