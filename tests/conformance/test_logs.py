"""One log, read in every way at once, whatever happens to the stack meanwhile: all have seen what is kept, once."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext

import pytest
import pytest_asyncio

from infra.contract.states import TERMINAL
from tests.browser.browser import Browser
from tests.chaos.proxy import ProxyHost
from tests.conformance.harms import HARMS
from tests.conformance.oracle import Seen, differences, kept
from tests.conformance.stack import Stack, functions, whole_stack
from tests.conformance.ways import HABITS, SERVED, WAYS, Ways
from tests.support.waiting import until, wait_until

SLOWLY = "for i in $(seq 40); do for j in 1 2 3 4 5; do echo line $i $j; done; sleep 0.1; done"
"""200 lines in 4 s, which is twice a lease."""
SHORTLY = "for i in $(seq 20); do for j in 1 2 3; do echo line $i $j; done; sleep 0.2; done"
MANY = 4_000
pytestmark = [pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with whole_stack(tmp_path_factory.mktemp("conformance")) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ways(whole: Stack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ways]:
    async with functions(whole, tmp_path_factory.mktemp("functions")) as (streaming, polling), _browser() as browser:
        urls = dict(zip(SERVED, (whole.url, whole.longpoll_url, streaming.url, polling.url), strict=True))
        with ProxyHost() as proxies:
            yield Ways(urls, whole.token, browser, proxies)


@pytest.fixture
def stack(whole: Stack) -> Iterator[Stack]:
    yield whole
    whole.heal()


def _browser() -> AbstractAsyncContextManager[Browser | None]:
    """Chromium, where there is one."""
    return Browser() if shutil.which("chromium") else nullcontext()


async def ended(stack: Stack, run_id: str) -> list[Seen]:
    """All that is kept of a log once the run has ended and its worker has archived what it will."""

    def over() -> bool:
        with stack.place.client() as client:
            return client.get_run(run_id).status in TERMINAL

    await asyncio.to_thread(wait_until, over, "the run ends", 120)
    return await kept(stack.place, run_id)


async def check(stack: Stack, run_id: str, reading: Mapping[tuple[str, str], "asyncio.Task[list[Seen]]"]) -> list[Seen]:
    """Everybody has seen what is kept."""
    seen = dict(zip(reading, await asyncio.gather(*reading.values()), strict=True))
    expected = await ended(stack, run_id)
    wrong = {name: text for name, events in seen.items() if (text := differences(events, expected))}
    assert not wrong
    return expected


@pytest.mark.parametrize("harm", HARMS)
async def test_all_see_the_same_whatever_happens_meanwhile(stack: Stack, ways: Ways, harm: str) -> None:
    await asyncio.to_thread(stack.start_workers, "a", "b")
    run_id = await asyncio.to_thread(stack.create, SLOWLY, "seq 300")
    reading = ways.begin(run_id)

    async def begun() -> bool:
        with stack.place.client() as client:
            return client.get_run(run_id).last_seq > 20

    await until(begun, "the log has begun", 60)
    assert not any(task.done() for task in reading.values())
    await asyncio.to_thread(HARMS[harm], stack, run_id)
    events = await check(stack, run_id, reading)
    assert harm not in {"kill_worker", "freeze_worker"} or await stack.fence(run_id) >= 2
    assert sum(event["type"] == "tool.output" for event in events) >= 500

    async def archived() -> bool:
        return await stack.archived(run_id) >= len(events) - 1

    await until(archived, "all but the last event is archived", 60)


@pytest.mark.parametrize("way", WAYS)
async def test_in_each_way_one_may_come_late_leave_and_come_back_or_be_torn_away(
    stack: Stack, ways: Ways, way: str
) -> None:
    await asyncio.to_thread(stack.start_workers, "a")
    run_id = await asyncio.to_thread(stack.create, SHORTLY, "seq 40")
    await check(stack, run_id, ways.begin(run_id, [(way, habit) for habit in HABITS if habit != "steady"]))


async def test_a_log_that_has_ended_and_is_archived(stack: Stack, ways: Ways) -> None:
    await asyncio.to_thread(stack.start_workers, "a")
    run_id = await asyncio.to_thread(stack.create, f"seq {MANY}")
    expected = await ended(stack, run_id)
    assert len(expected) > MANY
    await check(stack, run_id, ways.begin(run_id, [(way, "steady") for way in WAYS]))


async def test_logs_of_one_event_and_of_none_at_first(stack: Stack, ways: Ways) -> None:
    run_id = await asyncio.to_thread(stack.create, "true", start=False)
    reading = ways.begin(run_id)
    await asyncio.sleep(0.5)
    with stack.place.client() as client:
        client.cancel(run_id)
    (event,) = await check(stack, run_id, reading)
    assert event["type"] == "run.finished"


async def test_a_log_that_goes_on_after_a_retry(stack: Stack, ways: Ways) -> None:
    await asyncio.to_thread(stack.start_workers, "a")
    run_id = await asyncio.to_thread(stack.create, "seq 100; exit 3")
    first = await ended(stack, run_id)
    with stack.place.client() as client:
        client.retry(run_id)
    events = await check(stack, run_id, ways.begin(run_id))
    assert events[: len(first)] == first
    assert [event["type"] for event in events].count("run.finished") == 2
