"""A real browser's EventSource, on a page of another origin: it collects what Redis holds, whatever happens."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest
from msgspec import json

from edge_api.auth.stream_tokens import StreamTokens
from edge_api.http.response_models import LogEvent
from edge_api.settings import ApiSettings
from infra.contract.log import NewEvent
from infra.contract.redis_store import codec
from infra.settings import RedisRestSettings, RedisTcpSettings
from tests.browser.browser import CLOSED, Browser, Collected
from tests.chaos import proxy
from tests.edge.logs.test_streams import all_closed
from tests.edge.stack import STREAM_KEY, TOKENS, Edge, Files, SimulatedWorker, client, create, note, serve
from tests.edge.test_outages import Gateway
from tests.edge.test_process import TOKEN as TOKEN_OF_PROCESS
from tests.edge.test_process import running
from tests.support.redis import free_port
from tests.support.waiting import wait_until

ADA = TOKENS["ada"]


@asynccontextmanager
async def api(browser: Browser, rest: RedisRestSettings, **changes: Any) -> AsyncIterator[Edge]:
    """The API, which pages of the browser may call."""
    settings = ApiSettings(
        stream_ping_s=0.2, stream_token_keys=(STREAM_KEY,), cors_origins=(browser.origin,), **changes
    )
    async with serve(rest, Files(), settings) as edge:
        yield edge


async def new_run(edge: Edge, **fields: Any) -> str:
    async with client(edge, "ada") as ada:
        return await create(ada, **fields)


async def is_all(collected: Collected, worker: SimulatedWorker, run_id: str, *, after: int = 0) -> None:
    """Assert that it is what Redis holds: each event once, in order, the terminal one last."""
    reply = await worker.redis.command("XRANGE", f"run:{run_id}:log", "-", "+")
    stored = [json.decode(json.encode(LogEvent.of(event))) for event in codec.decode_entries(reply)]
    assert [event["seq"] for event in stored] == [*range(1, len(stored) + 1)]
    assert stored[-1]["type"] == "run.finished"
    assert collected.events == stored[after:]
    assert collected.ids == [*range(after + 1, len(stored) + 1)]
    assert (collected.gaps, collected.failures) == ([], [])


@pytest.mark.parametrize("bare", [True, False])
async def test_live_from_the_first_moment(
    browser: Browser, worker: SimulatedWorker, rest_settings: RedisRestSettings, bare: bool
) -> None:
    async with api(browser, rest_settings) as edge:
        run_id = await new_run(edge)
        async with browser.watch(edge.url, run_id, key=ADA, bare=bare) as tab:
            await tab.opened(1)
            lease = await worker.claim()
            await tab.has(1)
            await worker.emit(lease, note(1, text="one\ntwo \u2028 \U0001f9e0 </script>"), note(2))
            await tab.has(3)
            await worker.finish(lease)
            collected = await tab.finished()
            await is_all(collected, worker, run_id)
            assert (collected.finished, collected.ends) == ("end", [{"status": "succeeded", "last_seq": 4}])
            assert (collected.sources, collected.opened, collected.mints, collected.errors) == (1, 1, 1, [])
            assert collected.handed == ([] if bare else [1, 2, 3, 4])
            assert tab.statuses == [("stream-token", 201), ("stream", 200)]
            await all_closed(edge)


@pytest.mark.parametrize("bare", [True, False])
async def test_by_long_poll(
    browser: Browser, worker: SimulatedWorker, rest_settings: RedisRestSettings, bare: bool
) -> None:
    async with api(browser, rest_settings, log_mode="longpoll", longpoll_wait_s=0.5) as edge:
        run_id = await new_run(edge)
        async with browser.watch(edge.url, run_id, key=ADA, bare=bare) as tab:
            await tab.opened(1)
            lease = await worker.claim()
            for number in range(5):
                await worker.emit(lease, note(number), note(number))
                await tab.has(1 + 2 * number)
            await worker.finish(lease)
            collected = await tab.finished()
        await is_all(collected, worker, run_id)
        assert (collected.finished, collected.sources, collected.mints) == ("end", 1, 1)
        assert collected.opened >= 2
        assert collected.handed == ([] if bare else collected.ids)


async def test_late_and_after_the_end(
    browser: Browser, worker: SimulatedWorker, rest_settings: RedisRestSettings
) -> None:
    async with api(browser, rest_settings) as edge:
        run_id = await new_run(edge)
        lease = await worker.claim()
        await worker.emit(lease, *(note(number) for number in range(50)))
        async with browser.watch(edge.url, run_id, key=ADA) as late:
            await late.has(51)
            await worker.emit(lease, note(50))
            await worker.finish(lease)
            await is_all(await late.finished(), worker, run_id)
        for bare in (True, False):
            await is_all(await browser.collect(edge.url, run_id, key=ADA, bare=bare), worker, run_id)
            rest = await browser.collect(edge.url, run_id, key=ADA, bare=bare, after=20)
            await is_all(rest, worker, run_id, after=20)


async def test_a_page_that_has_all_is_told_to_stop(
    browser: Browser, worker: SimulatedWorker, rest_settings: RedisRestSettings
) -> None:
    async with api(browser, rest_settings) as edge:
        run_id = await new_run(edge)
        await worker.complete(events=3)
        async with browser.watch(edge.url, run_id, key=ADA, after=5, bare=True) as tab:
            collected = await tab.finished()
            assert tab.statuses == [("stream-token", 201), ("stream", 204)]
        assert (collected.finished, collected.errors, collected.messages) == ("refused", [CLOSED], [])
        async with browser.watch(edge.url, run_id, key=ADA, after=5) as tab:
            collected = await tab.finished()
            assert tab.statuses == [("stream-token", 201), ("stream", 204), (run_id, 200)]
        assert (collected.finished, collected.sources, collected.messages) == ("end", 1, [])


async def test_a_page_that_is_loaded_again_goes_on_where_it_was(
    browser: Browser, worker: SimulatedWorker, rest_settings: RedisRestSettings
) -> None:
    async with api(browser, rest_settings) as edge:
        run_id = await new_run(edge)
        lease = await worker.claim()
        async with browser.watch(edge.url, run_id, key=ADA) as tab:
            for turn in range(4):
                await worker.emit(lease, *(note(turn) for _ in range(10)))
                await tab.opened(1 + turn)
                await tab.has(1 + 10 * turn)
                await asyncio.gather(tab.reload(), worker.emit(lease, note(turn)))
            await worker.finish(lease)
            collected = await tab.finished()
        await is_all(collected, worker, run_id)
        assert collected.handed == collected.ids
        assert collected.sources == 5


async def test_the_hold_time_is_over_again_and_again(
    browser: Browser, worker: SimulatedWorker, rest_settings: RedisRestSettings
) -> None:
    async with api(browser, rest_settings, stream_hold_s=0.3) as edge:
        run_id = await new_run(edge)
        lease = await worker.claim()
        async with browser.watch(edge.url, run_id, key=ADA, bare=True) as tab:
            for times in range(1, 4):
                await worker.emit(lease, note(times))
                await tab.failed(times)
                await worker.emit(lease, note(times))
            await worker.finish(lease)
            collected = await tab.finished()
            assert {*tab.statuses} == {("stream-token", 201), ("stream", 200)}
        await is_all(collected, worker, run_id)
        assert (collected.sources, collected.mints) == (1, 1)
        assert collected.opened >= 4
        assert {*collected.errors} == {0}


async def test_an_expired_token_is_renewed(
    browser: Browser, worker: SimulatedWorker, rest_settings: RedisRestSettings
) -> None:
    async with api(browser, rest_settings, stream_hold_s=0.5) as edge:
        run_id = await new_run(edge)
        lease = await worker.claim()
        stale = StreamTokens([STREAM_KEY]).mint("ada", run_id, 60, time.time() - 120).token
        async with browser.watch(edge.url, run_id, key=ADA, token=stale, expires_s=1) as tab:
            seen = 0
            while (await tab.collected()).mints < 3:
                await worker.emit(lease, note(seen))
                seen += 1
                await tab.has(1 + seen)
            await worker.finish(lease)
            collected = await tab.finished()
            assert tab.statuses[:2] == [("stream", 401), (run_id, 401)]
        await is_all(collected, worker, run_id)
        assert collected.handed == collected.ids
        assert collected.errors.count(CLOSED) >= 3
        async with browser.watch(edge.url, run_id, token=stale, bare=True) as tab:
            assert (await tab.finished()).errors == [CLOSED]
            assert tab.statuses == [("stream", 401)]


async def test_the_api_is_killed_in_the_middle(
    browser: Browser, worker: SimulatedWorker, rest_settings: RedisRestSettings
) -> None:
    changes = {"EDGE_CORS_ORIGINS": browser.origin, "EDGE_STREAM_TOKEN_KEY": STREAM_KEY}
    port = free_port()
    with ExitStack() as stack:
        process, url = await asyncio.to_thread(stack.enter_context, running(rest_settings, port, **changes))
        async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {TOKEN_OF_PROCESS}"}) as ada:
            run_id = await create(ada)
        async with (
            browser.watch(url, run_id, key=TOKEN_OF_PROCESS, bare=True) as bare,
            browser.watch(url, run_id, key=TOKEN_OF_PROCESS) as tab,
        ):
            await asyncio.gather(bare.opened(1), tab.opened(1))
            lease = await worker.claim()
            await worker.emit(lease, *(note(number) for number in range(20)))
            await asyncio.gather(bare.has(1), tab.has(1))
            process.kill()
            await asyncio.gather(bare.failed(2), tab.failed(2))
            await worker.emit(lease, note(20))
            await asyncio.to_thread(stack.enter_context, running(rest_settings, port, **changes))
            await asyncio.gather(bare.opened(2), tab.opened(2))
            await worker.emit(lease, note(21))
            await worker.finish(lease)
            for collected in (await bare.finished(), await tab.finished()):
                await is_all(collected, worker, run_id)
                assert (collected.sources, collected.mints) == (1, 1)
                assert {*collected.errors} == {0}


async def test_an_answer_that_breaks_off_is_asked_for_again(
    browser: Browser,
    worker: SimulatedWorker,
    rest_settings: RedisRestSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That of the token: its head comes, its body not as a whole."""
    monkeypatch.setattr(proxy, "TORN_BYTES", (450, 450))
    async with api(browser, rest_settings) as edge:
        run_id = await new_run(edge)
        await worker.complete(events=2)
        with proxy.ProxyHost() as host:
            way = host.proxy(int(edge.url.rpartition(":")[2]))
            way.behave(proxy.Mode.TEAR)
            async with browser.watch(f"http://127.0.0.1:{way.port}", run_id, key=ADA) as tab:
                await asyncio.to_thread(wait_until, lambda: way.torn > 2, "answers have broken off")
                way.behave(proxy.Mode.PASS)
                collected = await tab.finished()
    assert collected.finished == "end"
    assert len(collected.events) == 4


async def test_the_gateway_is_killed_and_started_again(
    browser: Browser, worker: SimulatedWorker, tcp_settings: RedisTcpSettings
) -> None:
    own = Gateway(tcp_settings)
    try:
        async with api(browser, own.settings) as edge:
            run_id = await new_run(edge)
            lease = await worker.claim()
            async with browser.watch(edge.url, run_id, key=ADA, bare=True) as tab:
                await tab.has(1)
                await asyncio.to_thread(own.stop)
                await worker.emit(lease, note(1), note(2))
                await asyncio.to_thread(own.start)
                await tab.has(3)
                await worker.finish(lease)
                collected = await tab.finished()
            await is_all(collected, worker, run_id)
            assert (collected.opened, collected.errors) == (1, [])
    finally:
        own.stop()


async def test_a_page_that_comes_back_while_the_gateway_is_away_is_refused_and_goes_on_later(
    browser: Browser, worker: SimulatedWorker, tcp_settings: RedisTcpSettings
) -> None:
    own = Gateway(tcp_settings)
    try:
        async with api(browser, own.settings, stream_hold_s=1.0) as edge:
            run_id = await new_run(edge)
            lease = await worker.claim()
            async with browser.watch(edge.url, run_id, key=ADA) as tab:
                await tab.has(1)
                await asyncio.to_thread(own.stop)
                await worker.emit(lease, note(1), note(2))
                await tab.answered("stream", 503)
                await asyncio.to_thread(own.start)
                await tab.has(3)
                await worker.finish(lease)
                collected = await tab.finished()
            await is_all(collected, worker, run_id)
            assert collected.handed == [1, 2, 3, 4]
            assert CLOSED in collected.errors
    finally:
        own.stop()


async def test_kinds_of_events_that_nobody_knows_pass(
    browser: Browser, worker: SimulatedWorker, rest_settings: RedisRestSettings
) -> None:
    async with api(browser, rest_settings) as edge:
        run_id = await new_run(edge)
        lease = await worker.claim()
        kinds = ["hologram.shown", "end", "gap", "message", "error", "open", "ping", "run.paused"]
        data = {"text": "event: end\n\ndata: x\r\nid: 99\n\n: ping", "deep": [{"a": None}] * 3, "number": 1e300}
        await worker.emit(lease, *(NewEvent(ts=1, type=kind, step=None, data=data) for kind in kinds))
        await worker.finish(lease)
        for bare in (True, False):
            collected = await browser.collect(edge.url, run_id, key=ADA, bare=bare)
            await is_all(collected, worker, run_id)
            assert [event["type"] for event in collected.events][1:-1] == kinds
            assert len(collected.ends) == 1


async def test_a_run_of_one_event_and_one_of_thousands(
    browser: Browser, worker: SimulatedWorker, rest_settings: RedisRestSettings
) -> None:
    async with api(browser, rest_settings) as edge, client(edge, "ada") as ada:
        short = await create(ada)
        async with browser.watch(edge.url, short, key=ADA) as tab:
            await tab.opened(1)
            await ada.post(f"/agent/runs/{short}/cancel")
            collected = await tab.finished()
        await is_all(collected, worker, short)
        assert (len(collected.messages), collected.ends) == (1, [{"status": "cancelled", "last_seq": 1}])
        long = await create(ada)
        lease = await worker.claim()
        await worker.emit(lease, *(note(number) for number in range(1000)))
        async with (
            browser.watch(edge.url, long, key=ADA, bare=True) as bare,
            browser.watch(edge.url, long, key=ADA) as tab,
        ):
            for batch in range(40):
                await worker.emit(lease, *(note(number, batch=batch) for number in range(100)))
            await worker.finish(lease)
            for collected in (await bare.finished(), await tab.finished()):
                await is_all(collected, worker, long)
                assert len(collected.messages) == 5002


async def test_what_is_no_longer_kept_is_a_gap(
    browser: Browser, worker: SimulatedWorker, rest_settings: RedisRestSettings
) -> None:
    async with api(browser, rest_settings) as edge:
        run_id = await new_run(edge)
        await worker.complete(events=4)
        await worker.redis.command("XTRIM", f"run:{run_id}:log", "MINID", "4-0")
        collected = await browser.collect(edge.url, run_id, key=ADA)
        assert (collected.gaps, collected.ids) == ([{"first": 1, "last": 3}], [4, 5, 6])
        assert collected.finished == "end"


async def test_what_is_refused_for_good_is_said(
    browser: Browser, worker: SimulatedWorker, rest_settings: RedisRestSettings
) -> None:
    async with api(browser, rest_settings, stream_hold_s=0.5) as edge, client(edge, "ada") as ada:
        run_id = await create(ada, start=False)
        problem = "urn:swissbrain:problem:"
        collected = await browser.collect(edge.url, run_id, key=TOKENS["bob"])
        assert (collected.finished, collected.sources) == (f"{problem}run-not-found", 0)
        collected = await browser.collect(edge.url, run_id, key=ADA, token="nonsense")
        assert collected.finished == f"{problem}stream-token-invalid"
        async with browser.watch(edge.url, run_id, key=ADA) as tab:
            await tab.opened(1)
            await ada.delete(f"/agent/runs/{run_id}")
            assert (await tab.finished()).finished == f"{problem}run-not-found"


async def test_a_page_of_an_origin_that_may_not_call_gets_nothing(
    browser: Browser, worker: SimulatedWorker, rest_settings: RedisRestSettings
) -> None:
    settings = ApiSettings(stream_token_keys=(STREAM_KEY,), cors_origins=("https://app.example.ch",))
    async with serve(rest_settings, Files(), settings) as edge:
        run_id = await new_run(edge)
        await worker.complete()
        token = StreamTokens([STREAM_KEY]).mint("ada", run_id, 60, time.time()).token
        collected = await browser.collect(edge.url, run_id, token=token, bare=True)
        assert (collected.finished, collected.messages, collected.errors) == ("refused", [], [CLOSED])
