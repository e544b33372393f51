"""One log, read with all methods at the same time during disruptions: every reader reads exactly the stored log."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext

import pytest
import pytest_asyncio

from infra.contract.states import TERMINAL
from tests.browser.browser import Browser, program
from tests.chaos.proxy import ProxyHost
from tests.conformance.disruptions import DISRUPTIONS
from tests.conformance.oracle import EventFields, first_difference, stored_events
from tests.conformance.readers import METHODS, PATTERNS, SERVERS, Readers
from tests.conformance.stack import Stack, functions, whole_stack
from tests.support.waiting import until, wait_until

SLOW_OUTPUT = "for i in $(seq 40); do echo line $i; echo again $i; sleep 0.1; done"
"""80 lines in 4 s, which is twice a lease."""
SHORT_OUTPUT = "for i in $(seq 16); do for j in 1 2 3; do echo line $i $j; done; sleep 0.2; done"
ARCHIVED_LINES = 1_100
pytestmark = [pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(scope="module")
def module_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with whole_stack(tmp_path_factory.mktemp("conformance")) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def readers(module_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Readers]:
    folder = tmp_path_factory.mktemp("functions")
    async with functions(module_stack, folder) as (streaming, polling), _browser() as browser:
        addresses = (module_stack.url, module_stack.longpoll_url, streaming.url, polling.url)
        with ProxyHost() as proxies:
            yield Readers(dict(zip(SERVERS, addresses, strict=True)), module_stack.token, browser, proxies)


@pytest.fixture
def stack(module_stack: Stack) -> Iterator[Stack]:
    yield module_stack
    module_stack.heal()


def _browser() -> AbstractAsyncContextManager[Browser | None]:
    """Return a browser if Chromium is installed."""
    return Browser() if program() else nullcontext()


async def wait_for_stored_events(stack: Stack, run_id: str) -> list[EventFields]:
    """Wait until the run has ended; return its stored log."""

    def has_ended() -> bool:
        with stack.site.client() as client:
            return client.get_run(run_id).status in TERMINAL

    await asyncio.to_thread(wait_until, has_ended, "the run ends", 120)
    return await stored_events(stack.site, run_id)


async def check(
    stack: Stack, run_id: str, reading: Mapping[tuple[str, str], "asyncio.Task[list[EventFields]]"]
) -> list[EventFields]:
    """Wait for all readers; assert that each has read the stored log; return it."""
    read = dict(zip(reading, await asyncio.gather(*reading.values()), strict=True))
    expected = await wait_for_stored_events(stack, run_id)
    wrong = {name: text for name, events in read.items() if (text := first_difference(events, expected))}
    assert not wrong
    return expected


@pytest.mark.parametrize("disruption", DISRUPTIONS)
async def test_all_readers_read_the_stored_log_despite_a_disruption(
    stack: Stack, readers: Readers, disruption: str
) -> None:
    await asyncio.to_thread(stack.start_workers, "a", "b")
    run_id = await asyncio.to_thread(stack.create, SLOW_OUTPUT, "seq 40")
    reading = readers.start(run_id)

    async def has_started() -> bool:
        with stack.site.client() as client:
            return client.get_run(run_id).last_seq > 20

    await until(has_started, "the log has more than 20 events", 60)
    assert not any(task.done() for task in reading.values())

    await asyncio.to_thread(DISRUPTIONS[disruption], stack, run_id)

    events = await check(stack, run_id, reading)
    assert disruption not in {"kill_worker", "freeze_worker"} or await stack.fence(run_id) >= 2
    assert sum(event["type"] == "tool.output" for event in events) >= 120

    async def is_archived() -> bool:
        return await stack.archived(run_id) >= len(events) - 1

    await until(is_archived, "all events but the last are archived", 60)


@pytest.mark.parametrize("methods", [METHODS[:4], METHODS[4:]])
async def test_each_method_reads_the_stored_log_when_it_starts_late_or_reconnects(
    stack: Stack, readers: Readers, methods: tuple[str, ...]
) -> None:
    await asyncio.to_thread(stack.start_workers, "a")
    run_id = await asyncio.to_thread(stack.create, SHORT_OUTPUT, "seq 20")
    selected = [(method, pattern) for method in methods for pattern in PATTERNS if pattern != "steady"]
    await check(stack, run_id, readers.start(run_id, selected))


async def test_all_methods_read_an_archived_log(stack: Stack, readers: Readers) -> None:
    await asyncio.to_thread(stack.start_workers, "a")
    run_id = await asyncio.to_thread(stack.create, f"seq {ARCHIVED_LINES}")
    expected = await wait_for_stored_events(stack, run_id)
    assert len(expected) > ARCHIVED_LINES

    await check(stack, run_id, readers.start(run_id, [(method, "steady") for method in METHODS]))


async def test_all_readers_read_a_log_that_is_empty_at_first_and_gets_one_event(stack: Stack, readers: Readers) -> None:
    run_id = await asyncio.to_thread(stack.create, "true", start=False)
    reading = readers.start(run_id)
    await asyncio.sleep(0.5)

    with stack.site.client() as client:
        client.cancel(run_id)

    (event,) = await check(stack, run_id, reading)
    assert event["type"] == "run.finished"


async def test_all_readers_read_a_log_that_a_retry_continues(stack: Stack, readers: Readers) -> None:
    await asyncio.to_thread(stack.start_workers, "a")
    run_id = await asyncio.to_thread(stack.create, "seq 40; exit 3")
    first = await wait_for_stored_events(stack, run_id)

    with stack.site.client() as client:
        client.retry(run_id)

    events = await check(stack, run_id, readers.start(run_id))
    assert events[: len(first)] == first
    assert [event["type"] for event in events].count("run.finished") == 2
