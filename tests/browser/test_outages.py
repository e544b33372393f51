"""EventSource of a real browser while the API, a response or the gateway fails."""

import asyncio
from contextlib import ExitStack

import httpx
import pytest

from infra.settings import RedisRestSettings
from tests.browser.browser import CLOSED, Browser
from tests.browser.helpers import ADA, api, assert_complete, new_run
from tests.chaos import proxy
from tests.edge.api_process import TOKEN as TOKEN_OF_PROCESS
from tests.edge.api_process import running
from tests.edge.stack import STREAM_KEY, SimulatedWorker, create, note
from tests.support.own_gateway import Gateway
from tests.support.redis import free_port
from tests.support.waiting import wait_until


async def test_a_page_continues_after_the_api_was_killed_and_restarted(
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
            await asyncio.gather(bare.wait_for_connections(1), tab.wait_for_connections(1))
            lease = await worker.claim()
            await worker.emit(lease, *(note(number) for number in range(20)))
            await asyncio.gather(bare.wait_for_messages(1), tab.wait_for_messages(1))
            process.kill()
            await asyncio.gather(bare.wait_for_errors(2), tab.wait_for_errors(2))
            await worker.emit(lease, note(20))
            await asyncio.to_thread(stack.enter_context, running(rest_settings, port, **changes))
            await asyncio.gather(bare.wait_for_connections(2), tab.wait_for_connections(2))
            await worker.emit(lease, note(21))
            await worker.finish(lease)

            for collected in (await bare.wait_for_end(), await tab.wait_for_end()):
                await assert_complete(collected, worker, run_id)
                assert (collected.sources, collected.mints) == (1, 1)
                assert {*collected.errors} == {0}


async def test_a_truncated_token_response_is_requested_again(
    browser: Browser,
    worker: SimulatedWorker,
    rest_settings: RedisRestSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # 450 bytes: the head of the response, and only a part of its body.
    monkeypatch.setattr(proxy, "TRUNCATE_BYTES", (450, 450))
    async with api(browser, rest_settings) as edge:
        run_id = await new_run(edge)
        await worker.complete(events=2)
        with proxy.ProxyHost() as host:
            to_api = host.proxy(int(edge.url.rpartition(":")[2]))
            to_api.behave(proxy.Mode.TRUNCATE)
            async with browser.watch(f"http://127.0.0.1:{to_api.port}", run_id, key=ADA) as tab:
                await asyncio.to_thread(wait_until, lambda: to_api.truncated > 2, "responses have been truncated")
                to_api.behave(proxy.Mode.PASS)
                collected = await tab.wait_for_end()
    assert collected.finished == "end"
    assert len(collected.events) == 4


async def test_an_open_stream_continues_after_a_restart_of_the_gateway(
    browser: Browser, worker: SimulatedWorker, own_gateway: Gateway
) -> None:
    async with api(browser, own_gateway.settings) as edge:
        run_id = await new_run(edge)
        lease = await worker.claim()
        async with browser.watch(edge.url, run_id, key=ADA, bare=True) as tab:
            await tab.wait_for_messages(1)
            await asyncio.to_thread(own_gateway.stop)
            await worker.emit(lease, note(1), note(2))
            await asyncio.to_thread(own_gateway.start)
            await tab.wait_for_messages(3)
            await worker.finish(lease)
            collected = await tab.wait_for_end()

        await assert_complete(collected, worker, run_id)
        assert (collected.opened, collected.errors) == (1, [])


async def test_a_page_that_reconnects_during_a_gateway_outage_gets_503_and_continues_later(
    browser: Browser, worker: SimulatedWorker, own_gateway: Gateway
) -> None:
    async with api(browser, own_gateway.settings, stream_hold_s=1.0) as edge:
        run_id = await new_run(edge)
        lease = await worker.claim()
        async with browser.watch(edge.url, run_id, key=ADA) as tab:
            await tab.wait_for_messages(1)
            await asyncio.to_thread(own_gateway.stop)
            await worker.emit(lease, note(1), note(2))
            await tab.wait_for_status("stream", 503)
            await asyncio.to_thread(own_gateway.start)
            await tab.wait_for_messages(3)
            await worker.finish(lease)
            collected = await tab.wait_for_end()

        await assert_complete(collected, worker, run_id)
        assert collected.delivered == [1, 2, 3, 4]
        assert CLOSED in collected.errors
