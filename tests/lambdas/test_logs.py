"""Live logs from Lambda: a client gets the same events from the function that streams and from the one that polls."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from msgspec import json

from infra.contract.states import Status
from swissbrain import Client
from swissbrain.models import Event
from tests.edge.stack import PLAN, TOKENS, SimulatedWorker, create, follow, follow_to_the_end, note, numbers, stream
from tests.lambdas.function_url import FunctionUrl
from tests.support.waiting import until


@asynccontextmanager
async def ada(front: FunctionUrl) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {TOKENS['ada']}"}
    async with httpx.AsyncClient(base_url=front.url, headers=headers, timeout=60) as http:
        yield http


async def test_events_arrive_while_the_run_still_runs(streaming: FunctionUrl, worker: SimulatedWorker) -> None:
    async with ada(streaming) as http:
        run_id = await create(http)
        async with stream(http, run_id) as events:
            lease = await worker.claim()
            assert (await anext(events)).id == "1"
            for number in range(2, 6):
                await worker.emit(lease, note(number))
                assert (await anext(events)).id == str(number)
                assert streaming.calls[-1].outcome == ""
            await worker.finish(lease)
            assert [(event.event, event.id) async for event in events] == [("message", "6"), ("end", "6")]
    assert await streaming.calls[-1].ended() == "answered"
    assert streaming.calls[-1].pieces >= 7


async def test_a_client_gets_each_event_once_and_in_order(front: FunctionUrl, worker: SimulatedWorker) -> None:
    async with ada(front) as http:
        run_id = await create(http)
        watching = asyncio.create_task(follow_to_the_end(http, run_id))
        lease = await worker.claim()
        for number in range(2, 30):
            await worker.emit(lease, note(number, text="ünï\ncode"))
        await worker.finish(lease)
        seen = await watching
    assert numbers(seen) == list(range(1, 31))
    assert [event.event for event in seen if event.event != "message"] == ["end"]
    assert json.decode(seen[-1].data) == {"status": "succeeded", "last_seq": 30}


async def test_our_client_follows_a_run(front: FunctionUrl, worker: SimulatedWorker) -> None:
    def run_it() -> list[int]:
        with Client(front.url, TOKENS["ada"], timeout_s=60) as client:
            run = client.create_run(plan=PLAN["plan"])
            loop.call_soon_threadsafe(created.set_result, None)
            return [event.seq for event in client.events(run.run_id) if isinstance(event, Event)]

    loop = asyncio.get_running_loop()
    created: asyncio.Future[None] = loop.create_future()
    following = asyncio.create_task(asyncio.to_thread(run_it))
    await created
    lease = await worker.claim()
    for number in range(2, 10):
        await worker.emit(lease, note(number))
    await worker.finish(lease)
    assert await following == list(range(1, 11))


async def test_a_late_joiner_gets_the_same_events(front: FunctionUrl, worker: SimulatedWorker) -> None:
    async with ada(front) as http:
        run_id = await create(http)
        lease = await worker.claim()
        early = asyncio.create_task(follow_to_the_end(http, run_id))
        for number in range(2, 8):
            await worker.emit(lease, note(number))
        late = asyncio.create_task(follow_to_the_end(http, run_id))
        await worker.finish(lease)
        assert [event.data for event in await early] == [event.data for event in await late]
        assert numbers(await late) == list(range(1, 9))


async def test_the_log_of_an_ended_run_is_returned_immediately_from_any_event_on(
    front: FunctionUrl, worker: SimulatedWorker
) -> None:
    async with ada(front) as http:
        run_id = await create(http)
        await worker.complete(events=5, status=Status.FAILED)
        expected = await follow(http, run_id)
        assert numbers(expected) == list(range(1, 8))
        assert expected[-1].event == "end"
        for after in range(7):
            seen = await follow(http, run_id, after)
            assert [event.data for event in seen] == [event.data for event in expected[after:]]
        answer = await http.get(f"/agent/logs/{run_id}/stream", headers={"Last-Event-ID": "7"})
        assert (answer.status_code, answer.content) == (204, b"")


async def test_requests_share_the_clients_of_their_process(front: FunctionUrl, worker: SimulatedWorker) -> None:
    async def is_idle() -> bool:
        return bool(front.idle)

    async with ada(front) as http:
        await create(http)
        # The answer may arrive before the environment is free: another one would be started for the next request.
        await until(is_idle, "the environment is free")
        process = front.idle[-1].process
        for _ in range(5):
            run_id = await create(http)
            await until(is_idle, "the environment is free")
            assert (await http.get(f"/agent/runs/{run_id}")).json()["run_id"] == run_id
            await until(is_idle, "the environment is free")
        assert front.idle[-1].process is process
        assert front.idle[-1].starts == 1


async def test_bad_input_is_a_problem(front: FunctionUrl) -> None:
    async with ada(front) as http:
        answer = await http.post("/agent/runs", json={"prompt": 1})
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
        assert answer.json()["field"] == "$.prompt"
        answer = await http.get("/agent/logs/none/stream")
        assert (answer.status_code, answer.json()["type"]) == (404, "urn:swissbrain:problem:run-not-found")
        answer = await http.get("/agent/runs", headers={"Authorization": "Bearer no"})
        assert (answer.status_code, "www-authenticate" in answer.headers) == (401, True)
