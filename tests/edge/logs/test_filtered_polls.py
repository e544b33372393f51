"""Long polls with filters: they wait for wanted events, and move the client's last id over all others."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest_asyncio
from httpx_sse import ServerSentEvent, aconnect_sse

from edge_api.settings import ApiSettings
from infra.contract.log import NewEvent
from infra.settings import RedisRestSettings
from tests.edge.stack import Edge, Files, SimulatedWorker, client, create, numbers, serve
from tests.support.waiting import until

WAIT_S = 30.0
"""Far longer than a busy machine takes to answer a poll that has something to say."""


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def running_edge(rest_settings: RedisRestSettings) -> AsyncIterator[Edge]:
    """The API of this file, in the mode `longpoll`."""
    settings = ApiSettings(log_mode="longpoll", longpoll_wait_s=WAIT_S)
    async with serve(rest_settings, Files(), settings) as edge:
        yield edge


def message(step: int) -> NewEvent:
    return NewEvent(ts=1, type="message", step=step, data={"text": "hi"})


async def poll(http: httpx.AsyncClient, run_id: str, after: int = 0, **params: Any) -> list[ServerSentEvent]:
    headers = {"Last-Event-ID": str(after)} if after else {}
    async with aconnect_sse(http, "GET", f"/agent/logs/{run_id}/stream", params=params, headers=headers) as source:
        assert source.response.status_code == 200
        return [event async for event in source.aiter_sse() if event.data]


async def test_a_poll_returns_wanted_events_immediately_and_the_position_behind_the_others(
    ada: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    run_id = await create(ada)
    lease = await worker.claim()
    await worker.emit(lease, message(1), message(0))
    await worker.emit(lease, message(0))
    began = time.monotonic()
    events = await poll(ada, run_id, step="1")
    assert time.monotonic() - began < WAIT_S
    assert [(each.event, each.id) for each in events] == [("message", "2"), ("skipped", "4")]
    await worker.finish(lease)


async def test_a_poll_is_not_ended_by_unwanted_events(
    ada: httpx.AsyncClient, worker: SimulatedWorker, edge: Edge
) -> None:
    run_id = await create(ada)
    lease = await worker.claim()
    polling = asyncio.create_task(poll(ada, run_id, step="1"))

    async def waiting() -> bool:
        return edge.feed.open == 1

    await until(waiting, "the poll waits")
    for _ in range(3):
        await worker.emit(lease, message(0))
        await asyncio.sleep(0.05)
    assert not polling.done()
    await worker.emit(lease, message(1))
    assert numbers(await polling) == [5]
    await worker.finish(lease)


async def test_a_poll_that_found_only_unwanted_events_ends_in_time_and_moves_the_position(
    worker: SimulatedWorker, rest_settings: RedisRestSettings
) -> None:
    settings = ApiSettings(log_mode="longpoll", longpoll_wait_s=0.2)
    async with serve(rest_settings, Files(), settings) as edge, client(edge, "ada") as http:
        run_id = await create(http)
        lease = await worker.claim()
        await worker.emit(lease, message(0), message(1))
        events: list[ServerSentEvent] = []

        async def answered() -> bool:
            """Poll once more. On a busy machine a poll may end before it has read anything."""
            events.extend(await poll(http, run_id, after=1, step="7"))
            return bool(events)

        await until(answered, "the log is read")
        assert [(each.event, each.id) for each in events] == [("skipped", "3")]
        await worker.finish(lease)


async def test_repeated_polls_return_each_wanted_event_once_up_to_the_end(
    ada: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    run_id = await create(ada)
    lease = await worker.claim()
    for number in range(30):
        await worker.emit(lease, message(number % 3), message(0))
    await worker.finish(lease)
    seen: list[ServerSentEvent] = []
    after = 0
    while not seen or seen[-1].event != "end":
        seen += await poll(ada, run_id, after, step="1", type="message")
        after = max(int(each.id or 0) for each in seen)
    assert numbers(seen) == [2 + 2 * number for number in range(30) if number % 3 == 1]
    assert after < 62
