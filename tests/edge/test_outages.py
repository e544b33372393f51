"""Outages of Redis and of the gateway as clients see them, and clients that are too slow."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from edge_api.http.service_models import VERSION
from edge_api.routes import system
from edge_api.routes.system import READY_S, Readiness
from edge_api.settings import ApiSettings
from infra.contract.errors import HostExhausted, StoreUnavailable
from infra.redis_tcp import RedisTcp
from infra.settings import RedisRestSettings
from tests.edge.stack import PLAN, TOKENS, Edge, Files, SimulatedWorker, client, create, note, numbers, serve, stream
from tests.support.own_gateway import Gateway
from tests.support.redis import LOADS_SLOWLY, gateway, hurry, save_ballast, valkey_server
from tests.support.waiting import until


async def test_requests_without_redis_get_503(worker: SimulatedWorker, own_gateway: Gateway) -> None:
    async with serve(own_gateway.settings, Files()) as edge, client(edge, "ada") as http:
        run_id = await create(http)
        assert (await http.get("/ready")).json() == {"status": "ready", "version": VERSION}
        await asyncio.to_thread(own_gateway.stop)
        paths = ["/agent/runs", "/agent/queue", f"/agent/runs/{run_id}", f"/agent/logs/{run_id}/stream"]
        answers = [await http.get(path) for path in paths]
        answers += [await http.post("/agent/runs", json=PLAN), await http.delete(f"/agent/runs/{run_id}")]
        for answer in answers:
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "2"
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["type"] == "urn:swissbrain:problem:store-unavailable"
        assert (await http.get("/health")).status_code == 200
        await until(lambda: answers_with(http, "/ready", 503), "/ready tells the outage", timeout_s=READY_S + 30)
        assert (await http.post("/agent/runs", json={})).status_code == 422
        await asyncio.to_thread(own_gateway.start)
        assert (await http.get(f"/agent/runs/{run_id}")).status_code == 200


async def answers_with(http: httpx.AsyncClient, path: str, status: int) -> bool:
    return (await http.get(path)).status_code == status


@asynccontextmanager
async def own_redis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[RedisTcp, httpx.AsyncClient, str]]:
    """Connection to a Valkey of its own, client of an API over it that is ready, and the id of a run."""
    monkeypatch.setattr(system, "READY_S", 0.1)
    with valkey_server(tmp_path) as tcp, gateway(tcp) as rest:
        redis = RedisTcp(tcp)
        async with serve(rest, Files()) as edge, client(edge, "ada") as http:
            run_id = await create(http)
            assert await answers_with(http, "/ready", 200)
            yield redis, http, run_id
        await redis.close()


async def test_a_redis_without_memory_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with own_redis(tmp_path, monkeypatch) as (redis, http, run_id):
        await redis.command("CONFIG", "SET", "maxmemory", "1")
        answer = await http.post("/agent/runs", json=PLAN)
        assert (answer.status_code, answer.json()["type"]) == (507, "urn:swissbrain:problem:store-full")
        assert "memory" in answer.json()["detail"]
        assert "retry-after" not in answer.headers
        await until(lambda: answers_with(http, "/ready", 507), "/ready tells it")
        assert (await http.get(f"/agent/runs/{run_id}")).json()["status"] == "queued"
        await redis.command("CONFIG", "SET", "maxmemory", "0")
        await until(lambda: answers_with(http, "/ready", 200), "/ready is right again")
        assert (await http.post("/agent/runs", json=PLAN)).status_code == 201


async def test_a_redis_that_refuses_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with own_redis(tmp_path, monkeypatch) as (redis, http, run_id):
        await redis.command("CONFIG", "SET", "min-replicas-to-write", "1")
        answer = await http.post("/agent/runs", json=PLAN)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        assert answer.json()["type"] == "urn:swissbrain:problem:store-refuses"
        assert "it has too few replicas (NOREPLICAS); the refused command has changed nothing" in answer.text
        await until(lambda: answers_with(http, "/ready", 503), "/ready tells it")
        assert await answers_with(http, f"/agent/runs/{run_id}", 200)
        await redis.command("CONFIG", "SET", "min-replicas-to-write", "0")
        await until(lambda: answers_with(http, "/ready", 200), "/ready is right again")
        # The loss of a right says nothing about the records.
        await redis.command("ACL", "SETUSER", "default", "-hmget")
        for path in (f"/agent/runs/{run_id}", "/agent/runs", f"/agent/logs/{run_id}"):
            answer = await http.get(path)
            assert (answer.status_code, answer.json()["type"]) == (502, "urn:swissbrain:problem:store-rejected")


async def test_readiness_is_checked_once_for_all_who_ask() -> None:
    checks, now = 0, 1000.0

    async def check() -> None:
        nonlocal checks
        checks += 1
        await asyncio.sleep(0.01)
        if checks == 2:
            raise StoreUnavailable("no reply")

    store: Any = SimpleNamespace(ping=check)
    readiness = Readiness(store, lambda: now)
    assert await asyncio.gather(*(readiness.failure() for _ in range(50))) == [None] * 50
    now += READY_S - 0.1
    assert (await readiness.failure(), checks) == (None, 1)
    now += 0.2
    failures = await asyncio.gather(*(readiness.failure() for _ in range(50)))
    assert ({str(failure) for failure in failures}, checks) == ({"no reply"}, 2)
    now += READY_S
    assert (await readiness.failure(), checks) == (None, 3)


async def test_a_gateway_without_redis_counts_as_an_outage(tmp_path: Path) -> None:
    with ExitStack() as redis:
        tcp = redis.enter_context(valkey_server(tmp_path))
        with gateway(tcp) as rest:
            async with serve(rest, Files()) as edge, client(edge, "ada") as http:
                run_id = await create(http)
                redis.close()
                for path in ("/ready", "/agent/runs", f"/agent/runs/{run_id}", f"/agent/logs/{run_id}/stream"):
                    answer = await http.get(path)
                    assert answer.status_code == 503, path
                    assert answer.headers["retry-after"] == "2"
                assert (await http.post("/agent/runs", json=PLAN)).status_code == 503


async def test_a_redis_that_loads_its_data_counts_as_an_outage(tmp_path: Path) -> None:
    with valkey_server(tmp_path) as tcp:
        redis = RedisTcp(tcp)
        await save_ballast(redis)
    with gateway(tcp) as rest:
        async with serve(rest, Files()) as edge, client(edge, "ada") as http:
            # Started last, because it loads for a minute only.
            with valkey_server(tmp_path, urlsplit(tcp.url).port, *LOADS_SLOWLY):
                answer = await http.post("/agent/runs", json=PLAN)
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
                await hurry(redis)

                async def created() -> bool:
                    return (await http.post("/agent/runs", json=PLAN)).status_code == 201

                await until(created, "Redis has loaded", timeout_s=60)
    await redis.close()


async def test_streams_outlive_the_gateway(worker: SimulatedWorker, own_gateway: Gateway) -> None:
    async with serve(own_gateway.settings, Files()) as edge, client(edge, "ada") as http:
        run_id = await create(http)
        lease = await worker.claim()
        async with stream(http, run_id) as one, stream(http, run_id) as two:
            for events in (one, two):
                assert numbers([await anext(events)]) == [1]
            await asyncio.to_thread(own_gateway.stop)
            await worker.emit(lease, note(1))
            await worker.emit(lease, note(2))
            await asyncio.to_thread(own_gateway.start)
            for events in (one, two):
                assert numbers([await anext(events), await anext(events)]) == [2, 3]
            await worker.emit(lease, note(3))
            await worker.finish(lease)
            for events in (one, two):
                rest = [event async for event in events]
                assert numbers(rest) == [4, 5]
                assert rest[-1].event == "end"


@asynccontextmanager
async def mute_client(edge: Edge, run_id: str) -> AsyncIterator[asyncio.StreamReader]:
    """Client that requests a stream and then does not read it."""
    port = int(edge.url.rsplit(":", 1)[1])
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    request = f"GET /agent/logs/{run_id}/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKENS['ada']}\r\n\r\n"
    writer.write(request.encode())
    yield reader
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def test_a_client_that_does_not_read_is_disconnected_and_delays_no_other(
    worker: SimulatedWorker, rest_settings: RedisRestSettings
) -> None:
    settings = ApiSettings(stream_stall_s=0.3)
    async with serve(rest_settings, Files(), settings) as edge, client(edge, "ada") as http:
        run_id = await create(http)
        lease = await worker.claim()
        async with mute_client(edge, run_id), stream(http, run_id) as events:
            seen = [await anext(events)]

            async def both_there() -> bool:
                return edge.streams == 2

            await until(both_there, "both clients are connected")
            text = "x" * 60_000
            for number in range(200):
                await worker.emit(lease, note(number, text=text))
                seen.append(await anext(events))

            async def cut_off() -> bool:
                return edge.streams == 1

            await until(cut_off, "the client that does not read is cut off")
            await worker.finish(lease)
            seen += [event async for event in events]
        assert numbers(seen) == list(range(1, 203))
        assert edge.feed.opened == 1


async def test_many_streams_of_many_runs_get_all_events(
    ada: httpx.AsyncClient, worker: SimulatedWorker, edge: Edge
) -> None:
    runs = [await create(ada) for _ in range(10)]

    async def watch(run_id: str) -> list[int]:
        async with stream(ada, run_id) as events:
            seen = [event async for event in events]
        assert seen[-1].event == "end"
        return numbers(seen)

    watching = [asyncio.create_task(watch(run_id)) for run_id in runs for _ in range(10)]

    async def all_there() -> bool:
        return edge.streams == 100 and edge.feed.open == 10

    await until(all_there, "all clients are connected")
    assert edge.feed.opened == 10
    await asyncio.gather(*(worker.complete(events=10) for _ in runs))
    for seen in await asyncio.gather(*watching):
        assert seen == list(range(1, 13))


async def test_an_unexpected_error_shows_no_internal_details(
    worker: SimulatedWorker, rest_settings: RedisRestSettings, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Files):
        async def delete_run(self, user_id: str, run_id: str) -> int:
            raise KeyError("secret inside")

    async with serve(rest_settings, Broken()) as edge, client(edge, "ada") as http:
        run_id = await create(http, start=False)
        answer = await http.delete(f"/agent/runs/{run_id}")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:swissbrain:problem:internal"
    assert "secret inside" not in answer.text
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1


async def test_an_exhausted_host_of_the_api_is_an_outage(rest_settings: RedisRestSettings) -> None:
    class Short(Files):
        async def delete_run(self, user_id: str, run_id: str) -> int:
            raise HostExhausted("the worker's host is short of open files")

    async with serve(rest_settings, Short()) as edge, client(edge, "ada") as http:
        answer = await http.delete(f"/agent/runs/{await create(http, start=False)}")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert answer.json()["type"] == "urn:swissbrain:problem:host-exhausted"
    assert "the API's own host" in answer.json()["detail"]
