"""EventSource of a real browser, on a page of another origin: the page receives the stored log."""

import asyncio
import time

import pytest

from edge_api.auth.stream_tokens import StreamTokens
from edge_api.settings import ApiSettings
from infra.contract.log import NewEvent
from infra.settings import RedisRestSettings
from tests.browser.browser import CLOSED, Browser
from tests.browser.helpers import ADA, api, assert_complete, new_run
from tests.edge.logs.test_streams import all_closed
from tests.edge.stack import STREAM_KEY, TOKENS, Files, SimulatedWorker, client, create, note, serve


@pytest.mark.parametrize("bare", [True, False])
async def test_a_page_opened_before_the_start_receives_all_events_live(
    browser: Browser, worker: SimulatedWorker, rest_settings: RedisRestSettings, bare: bool
) -> None:
    async with api(browser, rest_settings) as edge:
        run_id = await new_run(edge)
        async with browser.watch(edge.url, run_id, key=ADA, bare=bare) as tab:
            await tab.wait_for_connections(1)
            lease = await worker.claim()
            await tab.wait_for_messages(1)
            await worker.emit(lease, note(1, text="one\ntwo \u2028 \U0001f9e0 </script>"), note(2))
            await tab.wait_for_messages(3)
            await worker.finish(lease)
            collected = await tab.wait_for_end()

            await assert_complete(collected, worker, run_id)
            assert (collected.finished, collected.ends) == ("end", [{"status": "succeeded", "last_seq": 4}])
            assert (collected.sources, collected.opened, collected.mints, collected.errors) == (1, 1, 1, [])
            assert collected.delivered == ([] if bare else [1, 2, 3, 4])
            assert tab.statuses == [("stream-token", 201), ("stream", 200)]
            await all_closed(edge)


@pytest.mark.parametrize("bare", [True, False])
async def test_a_page_receives_the_log_by_long_poll(
    browser: Browser, worker: SimulatedWorker, rest_settings: RedisRestSettings, bare: bool
) -> None:
    async with api(browser, rest_settings, log_mode="longpoll", longpoll_wait_s=0.5) as edge:
        run_id = await new_run(edge)
        async with browser.watch(edge.url, run_id, key=ADA, bare=bare) as tab:
            await tab.wait_for_connections(1)
            lease = await worker.claim()
            for number in range(5):
                await worker.emit(lease, note(number), note(number))
                await tab.wait_for_messages(1 + 2 * number)
            await worker.finish(lease)
            collected = await tab.wait_for_end()
        await assert_complete(collected, worker, run_id)
        assert (collected.finished, collected.sources, collected.mints) == ("end", 1, 1)
        assert collected.opened >= 2
        assert collected.delivered == ([] if bare else collected.ids)


async def test_a_page_opened_late_or_after_the_end_receives_the_log(
    browser: Browser, worker: SimulatedWorker, rest_settings: RedisRestSettings
) -> None:
    async with api(browser, rest_settings) as edge:
        run_id = await new_run(edge)
        lease = await worker.claim()
        await worker.emit(lease, *(note(number) for number in range(50)))
        async with browser.watch(edge.url, run_id, key=ADA) as late:
            await late.wait_for_messages(51)
            await worker.emit(lease, note(50))
            await worker.finish(lease)

            await assert_complete(await late.wait_for_end(), worker, run_id)
        for bare in (True, False):
            await assert_complete(await browser.collect(edge.url, run_id, key=ADA, bare=bare), worker, run_id)
            rest = await browser.collect(edge.url, run_id, key=ADA, bare=bare, after=20)
            await assert_complete(rest, worker, run_id, after=20)


async def test_a_page_that_has_received_the_whole_log_does_not_reconnect(
    browser: Browser, worker: SimulatedWorker, rest_settings: RedisRestSettings
) -> None:
    async with api(browser, rest_settings) as edge:
        run_id = await new_run(edge)
        await worker.complete(events=3)
        async with browser.watch(edge.url, run_id, key=ADA, after=5, bare=True) as tab:
            collected = await tab.wait_for_end()
            assert tab.statuses == [("stream-token", 201), ("stream", 204)]

        assert (collected.finished, collected.errors, collected.messages) == ("refused", [CLOSED], [])

        async with browser.watch(edge.url, run_id, key=ADA, after=5) as tab:
            collected = await tab.wait_for_end()
            assert tab.statuses == [("stream-token", 201), ("stream", 204), (run_id, 200)]
        assert (collected.finished, collected.sources, collected.messages) == ("end", 1, [])


async def test_a_reloaded_page_continues_after_its_last_event(
    browser: Browser, worker: SimulatedWorker, rest_settings: RedisRestSettings
) -> None:
    async with api(browser, rest_settings) as edge:
        run_id = await new_run(edge)
        lease = await worker.claim()
        async with browser.watch(edge.url, run_id, key=ADA) as tab:
            for number in range(4):
                await worker.emit(lease, *(note(number) for _ in range(10)))
                await tab.wait_for_connections(1 + number)
                await tab.wait_for_messages(1 + 10 * number)
                await asyncio.gather(tab.reload(), worker.emit(lease, note(number)))
            await worker.finish(lease)
            collected = await tab.wait_for_end()

        await assert_complete(collected, worker, run_id)
        assert collected.delivered == collected.ids
        assert collected.sources == 5


async def test_a_page_reconnects_whenever_the_hold_time_ends(
    browser: Browser, worker: SimulatedWorker, rest_settings: RedisRestSettings
) -> None:
    async with api(browser, rest_settings, stream_hold_s=0.3) as edge:
        run_id = await new_run(edge)
        lease = await worker.claim()
        async with browser.watch(edge.url, run_id, key=ADA, bare=True) as tab:
            for number in range(1, 4):
                await worker.emit(lease, note(number))
                await tab.wait_for_errors(number)
                await worker.emit(lease, note(number))
            await worker.finish(lease)
            collected = await tab.wait_for_end()

            assert {*tab.statuses} == {("stream-token", 201), ("stream", 200)}

        await assert_complete(collected, worker, run_id)
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
                await tab.wait_for_messages(1 + seen)
            await worker.finish(lease)
            collected = await tab.wait_for_end()

            assert tab.statuses[:2] == [("stream", 401), (run_id, 401)]

        await assert_complete(collected, worker, run_id)
        assert collected.delivered == collected.ids
        assert collected.errors.count(CLOSED) >= 3
        async with browser.watch(edge.url, run_id, token=stale, bare=True) as tab:
            assert (await tab.wait_for_end()).errors == [CLOSED]
            assert tab.statuses == [("stream", 401)]


async def test_a_page_receives_events_of_unknown_types(
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
            await assert_complete(collected, worker, run_id)
            assert [event["type"] for event in collected.events][1:-1] == kinds
            assert len(collected.ends) == 1


async def test_a_page_receives_a_log_of_one_event(
    browser: Browser, worker: SimulatedWorker, rest_settings: RedisRestSettings
) -> None:
    async with api(browser, rest_settings) as edge, client(edge, "ada") as ada:
        run_id = await create(ada)
        async with browser.watch(edge.url, run_id, key=ADA) as tab:
            await tab.wait_for_connections(1)
            await ada.post(f"/agent/runs/{run_id}/cancel")
            collected = await tab.wait_for_end()
        await assert_complete(collected, worker, run_id)
        assert (len(collected.messages), collected.ends) == (1, [{"status": "cancelled", "last_seq": 1}])


async def test_a_page_receives_a_log_of_thousands_of_events(
    browser: Browser, worker: SimulatedWorker, rest_settings: RedisRestSettings
) -> None:
    async with api(browser, rest_settings) as edge:
        run_id = await new_run(edge)
        lease = await worker.claim()
        await worker.emit(lease, *(note(number) for number in range(1000)))
        async with (
            browser.watch(edge.url, run_id, key=ADA, bare=True) as bare,
            browser.watch(edge.url, run_id, key=ADA) as tab,
        ):
            for batch in range(40):
                await worker.emit(lease, *(note(number, batch=batch) for number in range(100)))
            await worker.finish(lease)
            for collected in (await bare.wait_for_end(), await tab.wait_for_end()):
                await assert_complete(collected, worker, run_id)
                assert len(collected.messages) == 5002


async def test_a_page_receives_a_gap_for_events_that_are_no_longer_stored(
    browser: Browser, worker: SimulatedWorker, rest_settings: RedisRestSettings
) -> None:
    async with api(browser, rest_settings) as edge:
        run_id = await new_run(edge)
        await worker.complete(events=4)
        await worker.redis.command("XTRIM", f"run:{run_id}:log", "MINID", "4-0")
        collected = await browser.collect(edge.url, run_id, key=ADA)
        assert (collected.gaps, collected.ids) == ([{"first": 1, "last": 3}], [4, 5, 6])
        assert collected.finished == "end"


async def test_a_page_reports_a_problem_that_it_does_not_retry(
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
            await tab.wait_for_connections(1)
            await ada.delete(f"/agent/runs/{run_id}")
            assert (await tab.wait_for_end()).finished == f"{problem}run-not-found"


async def test_a_page_of_an_origin_that_is_not_allowed_receives_nothing(
    browser: Browser, worker: SimulatedWorker, rest_settings: RedisRestSettings
) -> None:
    settings = ApiSettings(stream_token_keys=(STREAM_KEY,), cors_origins=("https://app.example.ch",))
    async with serve(rest_settings, Files(), settings) as edge:
        run_id = await new_run(edge)
        await worker.complete()
        token = StreamTokens([STREAM_KEY]).mint("ada", run_id, 60, time.time()).token
        collected = await browser.collect(edge.url, run_id, token=token, bare=True)
        assert (collected.finished, collected.messages, collected.errors) == ("refused", [], [CLOSED])
