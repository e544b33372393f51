"""The outbox is published through answers that are none of QStash, the end of a worker, and a large backlog."""

import asyncio
from collections.abc import Callable

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from infra.contract.errors import QStashUnavailable
from infra.contract.redis_store.webhook_store import WebhookStore
from infra.event_publisher import CALLS_AT_ONCE, EventPublisher
from infra.qstash import QStashPublisher
from tests.edge.webhooks.conftest import OUTBOX, Hooks
from tests.support.qstash import qstash_settings, served
from tests.support.waiting import until


class RecordingQStash:
    """QStash that records what it gets. `fault` is called before, with the number of the call."""

    def __init__(self, fault: Callable[[int], None] = lambda _number: None) -> None:
        self.calls: list[str] = []
        self._fault = fault

    async def publish(self, path: str, body: str, deduplication_id: str, sharer: str) -> None:
        self.calls.append(deduplication_id)
        number = len(self.calls)
        await asyncio.sleep(0)
        self._fault(number)


async def fill(hooks: Hooks, count: int) -> list[str]:
    """Put overdue entries into the outbox, and return them."""
    entries = [f"ada:run_{number}:1:1796000000000:1" for number in range(count)]
    for entry in entries:
        await hooks.redis.command("ZADD", OUTBOX, 1, entry)
    return entries


@pytest.mark.parametrize("body", ["<html>Welcome</html>", "{}", "1", "\udcff"])
async def test_an_answer_that_is_none_of_qstash_is_a_failure_like_others(hooks: Hooks, body: str) -> None:
    async def page(_request: Request) -> Response:
        return Response(body.encode(errors="surrogateescape"), media_type="application/json")

    await hooks.create()
    await hooks.end()
    async with served(Starlette(routes=[Route("/{path:path}", page, methods=["POST"])])) as url:
        qstash = QStashPublisher(qstash_settings(url, hooks.edge.url))
        publisher = EventPublisher(WebhookStore(hooks.redis), qstash)
        (entry,) = await hooks.entries()
        publisher.noted(entry)
        # In a worker, an exception would end all of its runs.
        assert not await publisher.publish_noted()
        await qstash.close()
    assert await hooks.entries() == [entry]


async def test_an_event_under_way_at_the_end_of_a_worker_is_published(hooks: Hooks) -> None:
    begun = asyncio.Event()

    class SlowQStash(RecordingQStash):
        async def publish(self, path: str, body: str, deduplication_id: str, sharer: str) -> None:
            if not begun.is_set():
                begun.set()
                await asyncio.sleep(60)
            await super().publish(path, body, deduplication_id, sharer)

    await hooks.create()
    await hooks.end()
    qstash = SlowQStash()
    publisher = EventPublisher(WebhookStore(hooks.redis), qstash)
    publishing = asyncio.create_task(publisher.publish_forever())
    publisher.noted((await hooks.entries())[0])
    await begun.wait()
    publishing.cancel()
    await asyncio.gather(publishing, return_exceptions=True)

    assert await publisher.publish_noted()

    assert len(qstash.calls) == 1
    assert await hooks.entries() == []


async def test_a_backlog_is_published_piece_by_piece(hooks: Hooks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.event_publisher.OVERDUE_S", 0)
    monkeypatch.setattr("infra.event_publisher.TAKEN_AT_ONCE", 20)
    entries = await fill(hooks, 50)
    qstash = RecordingQStash()
    publisher = EventPublisher(WebhookStore(hooks.redis), qstash)

    # As the recovery tick does, whose caller waits.
    assert await publisher.publish_overdue() == (20, True)
    publishing = asyncio.create_task(publisher.publish_forever())

    async def empty() -> bool:
        return await hooks.entries() == []

    await until(empty, "all entries are published")
    publishing.cancel()
    assert len(qstash.calls) == len(set(qstash.calls)) == len(entries)


async def test_a_qstash_that_is_down_is_not_called_for_every_entry(hooks: Hooks) -> None:
    def fail(_number: int) -> None:
        raise QStashUnavailable("down, by the test")

    entries = await fill(hooks, 3 * CALLS_AT_ONCE)
    qstash = RecordingQStash(fail)
    assert await EventPublisher(WebhookStore(hooks.redis), qstash).publish_overdue() == (0, False)
    assert len(qstash.calls) == CALLS_AT_ONCE
    assert set(await hooks.entries()) == set(entries)


async def test_a_failing_entry_stops_no_other(hooks: Hooks) -> None:
    def fail_first(number: int) -> None:
        if number == 1:
            raise QStashUnavailable("failed, by the test")

    entries = await fill(hooks, 3 * CALLS_AT_ONCE)
    qstash = RecordingQStash(fail_first)
    published = await EventPublisher(WebhookStore(hooks.redis), qstash).publish_overdue()
    assert published == (len(entries) - 1, False)
    assert len(await hooks.entries()) == 1
