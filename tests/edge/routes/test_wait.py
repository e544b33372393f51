"""`GET /agent/runs/{run_id}?wait=`: the answer comes when the run has ended or waits for a person."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from edge_api.http.responses import ok
from edge_api.logs.fanout import Fanout
from edge_api.logs.run_wait import RunWaits
from edge_api.logs.sse import LogStreams
from infra.contract.errors import StoreUnavailable
from infra.contract.log import LogFeed
from infra.contract.runs import RunRecord, RunSpec
from infra.contract.states import Status
from infra.redis_rest import RedisRest
from infra.redis_tcp import RedisTcp
from infra.settings import RedisRestSettings
from tests.edge.logs.test_longpoll import Context
from tests.edge.stack import Edge, Files, SimulatedWorker, client, create, note, serve
from tests.support.command_counts import billed_commands
from tests.support.own_gateway import Gateway
from tests.support.waiting import until

Answer = asyncio.Task[httpx.Response]


def wait_for(http: httpx.AsyncClient, run_id: str, wait: int = 25) -> Answer:
    return asyncio.create_task(http.get(f"/agent/runs/{run_id}", params={"wait": wait}))


async def waiters(edge: Edge, count: int) -> None:
    async def there() -> bool:
        return edge.streams == count and edge.feed.open == min(count, 1)

    await until(there, f"{count} clients wait")


async def status_of(answer: Awaitable[httpx.Response]) -> str:
    answered = await answer
    assert answered.status_code == 200, answered.text
    return str(answered.json()["status"])


@pytest.mark.parametrize("end", [Status.SUCCEEDED, Status.FAILED])
async def test_a_run_that_ends_during_the_wait_is_answered_at_once(
    ada: httpx.AsyncClient, edge: Edge, worker: SimulatedWorker, end: Status
) -> None:
    run_id = await create(ada)
    answer = wait_for(ada, run_id)
    await waiters(edge, 1)
    lease = await worker.claim()
    for number in range(5):
        await worker.emit(lease, note(number))
    assert not answer.done()
    await worker.finish(lease, end)
    run = (await answer).json()
    assert (run["status"], run["result"], run["queue"]) == (end, {"answer": 42}, None)
    assert run == (await ada.get(f"/agent/runs/{run_id}")).json()
    assert (edge.streams, edge.feed.open) == (0, 0)


async def test_a_run_that_waits_for_a_person_is_answered(
    ada: httpx.AsyncClient, edge: Edge, worker: SimulatedWorker
) -> None:
    run_id = await create(ada)
    answer = wait_for(ada, run_id)
    await waiters(edge, 1)
    await worker.wait(await worker.claim())
    assert await status_of(answer) == "waiting"
    assert await status_of(wait_for(ada, run_id)) == "waiting"


async def test_a_cancelled_and_a_deleted_run_end_the_wait(ada: httpx.AsyncClient, edge: Edge) -> None:
    run_id, created = await create(ada), await create(ada, start=False)
    answer = wait_for(ada, run_id)
    await waiters(edge, 1)
    await ada.post(f"/agent/runs/{run_id}/cancel")
    assert await status_of(answer) == "cancelled"
    answer = wait_for(ada, created)
    await waiters(edge, 1)
    await ada.delete(f"/agent/runs/{created}")
    answered = await answer
    assert (answered.status_code, answered.json()["type"]) == (404, "urn:swissbrain:problem:run-not-found")


async def test_a_run_that_has_ended_is_answered_without_a_subscription(
    ada: httpx.AsyncClient, bob: httpx.AsyncClient, edge: Edge, worker: SimulatedWorker
) -> None:
    run_id = await create(ada)
    await worker.complete()
    assert await status_of(wait_for(ada, run_id)) == "succeeded"
    assert (await wait_for(bob, run_id)).status_code == 404
    other = await create(ada)
    head = await ada.head(f"/agent/runs/{other}?wait=25")
    assert (head.status_code, head.content) == (200, b"")
    assert edge.feed.opened == 0


class EndingFeed:
    """Feed that does something before it subscribes."""

    def __init__(self, feed: LogFeed, act: Callable[[], Awaitable[object]]) -> None:
        self._feed = feed
        self._act = act

    @asynccontextmanager
    async def subscribe(self, channel: str) -> AsyncIterator[AsyncIterator[str]]:
        await self._act()
        async with self._feed.subscribe(channel) as messages:
            yield messages


async def test_a_run_that_ends_between_the_first_read_and_the_subscription_is_answered(
    worker: SimulatedWorker, rest_settings: RedisRestSettings
) -> None:
    redis = RedisRest(rest_settings)
    feed = EndingFeed(redis, worker.complete)
    async with serve(rest_settings, Files(), feed=feed) as edge, client(edge, "ada") as http:
        run_id = await create(http)
        assert await status_of(wait_for(http, run_id)) == "succeeded"
    await redis.close()


async def test_a_wait_that_is_over_is_answered_with_the_run_as_it_is(
    ada: httpx.AsyncClient, edge: Edge, worker: SimulatedWorker
) -> None:
    await create(ada)
    run_id = await create(ada)
    begun = time.monotonic()
    run = (await wait_for(ada, run_id, 1)).json()
    assert time.monotonic() - begun >= 1
    assert run["status"] == "queued"
    assert run["queue"] == {"ahead": 1, "ahead_capped": False, "begins_ms": None, "workers_alive": 0}
    answer = wait_for(ada, run_id, 1)
    await waiters(edge, 1)
    await worker.claim()
    await worker.claim()
    assert await status_of(answer) == "running"


async def test_a_client_that_leaves_frees_its_place(edge: Edge, worker: SimulatedWorker) -> None:
    async with client(edge, "ada") as staying, client(edge, "ada") as leaving:
        run_id = await create(staying)
        answers = [wait_for(leaving, run_id) for _ in range(5)]
        answer = wait_for(staying, run_id)
        await waiters(edge, 6)
        for each in answers:
            each.cancel()
        await asyncio.gather(*answers, return_exceptions=True)
        await waiters(edge, 1)
        await worker.complete()
        assert await status_of(answer) == "succeeded"


async def test_all_who_wait_for_a_run_share_a_subscription_and_cost_nothing_meanwhile(
    ada: httpx.AsyncClient, edge: Edge, worker: SimulatedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_api.logs.run_wait.QUIET_S", 0.05)
    run_id = await create(ada)
    answers = [wait_for(ada, run_id) for _ in range(20)]
    await waiters(edge, 20)

    async def quiet() -> bool:
        before = await billed_commands(worker.redis)
        await asyncio.sleep(1)
        return (await billed_commands(worker.redis) - before).total() == 0

    await until(quiet, "no command is sent for a second")
    await worker.complete()
    assert {await status_of(answer) for answer in answers} == {"succeeded"}
    assert edge.feed.opened == 1


async def test_a_wait_survives_an_outage_of_redis(worker: SimulatedWorker, own_gateway: Gateway) -> None:
    async with serve(own_gateway.settings, Files()) as edge, client(edge, "ada") as http:
        run_id = await create(http)
        answer = wait_for(http, run_id)
        await waiters(edge, 1)
        await asyncio.to_thread(own_gateway.stop)
        await worker.complete()
        await asyncio.to_thread(own_gateway.start)
        assert await status_of(answer) == "succeeded"


async def test_a_wait_that_is_over_while_redis_is_away_gets_503(worker: SimulatedWorker, own_gateway: Gateway) -> None:
    async with serve(own_gateway.settings, Files()) as edge, client(edge, "ada") as http:
        run_id = await create(http)
        answer = wait_for(http, run_id, 6)
        await waiters(edge, 1)
        await asyncio.to_thread(own_gateway.stop)
        answered = await answer
        assert (answered.status_code, answered.json()["type"]) == (503, "urn:swissbrain:problem:store-unavailable")
        assert (await wait_for(http, run_id, 2)).status_code == 503


async def test_a_shutdown_answers_those_who_wait(worker: SimulatedWorker, rest_settings: RedisRestSettings) -> None:
    async with serve(rest_settings, Files()) as edge, client(edge, "ada") as http:
        answer = wait_for(http, await create(http))
        await waiters(edge, 1)
        edge.server.should_exit = True
        assert await status_of(answer) == "queued"


@pytest.mark.parametrize("wait", ["0", "26", "-1", "1.5", "soon", ""])
async def test_a_bad_time_to_wait_is_rejected(ada: httpx.AsyncClient, wait: str) -> None:
    answer = await ada.get(f"/agent/runs/{await create(ada)}?wait={wait}")
    assert (answer.status_code, answer.json()["field"]) == (422, "wait")


class Waited:
    """Wait without a server, as Mangum runs it. `records` are read one after the other, the last one repeatedly."""

    def __init__(self, feed: LogFeed, redis: RedisTcp, records: list[RunRecord | Exception]) -> None:
        self.store = SimulatedWorker(redis).store
        self.fanout = Fanout(feed)
        self.streams = LogStreams(self.fanout.wait_closed)
        self.records = records
        self.reads = 0

    async def read(self) -> RunRecord:
        self.reads += 1
        record = self.records.pop(0) if len(self.records) > 1 else self.records[0]
        if isinstance(record, Exception):
            raise record
        return record

    async def answer(self, left_ms: int) -> Any:
        async def receive() -> dict[str, str]:
            await asyncio.Event().wait()
            raise AssertionError("the event is never set")

        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def respond(record: RunRecord) -> Any:
            return ok(record.status)

        app = RunWaits(self.store, self.fanout, self.streams).response("run_1", self.read, respond, 25)
        await app({"type": "http", "method": "GET", "aws.context": Context(left_ms)}, receive, send)
        assert len(self.streams) == 0
        await self.fanout.wait_closed()
        return sent[-1]["body"].decode().strip('"')


async def records(redis: RedisTcp) -> tuple[SimulatedWorker, RunRecord]:
    worker = SimulatedWorker(redis)
    await worker.store.create("run_1", "ada", RunSpec(prompt="x"), start=True, digest="d")
    return worker, await worker.store.get("run_1")


async def test_on_lambda_the_wait_ends_before_the_invocation(redis: RedisTcp) -> None:
    _, queued = await records(redis)
    for left_ms in (2_100, 400, 0):
        async with asyncio.timeout(10):
            assert await Waited(redis, redis, [queued]).answer(left_ms) == "queued"


async def test_a_record_that_lags_behind_the_events_is_read_again(redis: RedisTcp) -> None:
    worker, queued = await records(redis)
    lease = await worker.claim()
    await worker.finish(lease)
    ended = await worker.store.get("run_1")
    waited = Waited(redis, redis, [queued, queued, queued, ended])
    answer = asyncio.create_task(waited.answer(20_000))

    async def has_read() -> bool:
        return waited.reads == 1

    await until(has_read, "the first read has come from a replica that lags behind")
    entries: Any = await redis.command("XRANGE", "run:run_1:log", "2-0", "+")
    await redis.command("PUBLISH", "agent:logs:run_1", entries[0][1][1])
    assert await answer == "succeeded"
    assert waited.reads == 4


async def test_an_error_that_another_try_would_meet_again_ends_the_wait(redis: RedisTcp) -> None:
    _, queued = await records(redis)
    waited = Waited(redis, redis, [StoreUnavailable("no reply"), KeyError("a bug"), queued])
    with pytest.raises(KeyError):
        await waited.answer(20_000)
    assert len(waited.streams) == 0
