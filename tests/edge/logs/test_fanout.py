"""Subscriptions without listeners are closed, and `wait_closed` waits until they are."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from edge_api.logs import fanout as module
from edge_api.logs.fanout import Fanout


class SlowFeed:
    """Subscriptions that close only when the test allows it."""

    def __init__(self) -> None:
        self.may_close = asyncio.Event()
        self.closing = self.open = 0

    @asynccontextmanager
    async def subscribe(self, channel: str) -> AsyncIterator[AsyncIterator[str]]:
        self.open += 1
        try:
            yield self._nothing()
        finally:
            self.closing += 1
            await self.may_close.wait()
            self.open -= 1

    async def _nothing(self) -> AsyncIterator[str]:
        await asyncio.Event().wait()
        yield ""


async def test_wait_closed_waits_only_for_subscriptions_without_listeners() -> None:
    feed = SlowFeed()
    fanout = Fanout(feed)
    with fanout.join("used") as used:
        await used.confirmed()
        await fanout.wait_closed()
        with fanout.join("idle") as idle:
            await idle.confirmed()
        closing = asyncio.create_task(fanout.wait_closed())
        while not feed.closing:
            await asyncio.sleep(0)
        assert not closing.done()
        feed.may_close.set()
        await closing
        assert feed.open == 1
    await fanout.wait_closed()
    assert feed.open == 0


async def test_wait_closed_gives_up_on_a_subscription_that_does_not_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLOSE_WAIT_S", 0.01)
    feed = SlowFeed()
    fanout = Fanout(feed)
    with fanout.join("idle") as idle:
        await idle.confirmed()
    await fanout.wait_closed()
    assert feed.open == 1
    feed.may_close.set()
    await fanout.close()
    assert feed.open == 0
