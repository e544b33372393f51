"""Helpers of the browser tests: an API that the browser may call, and the comparison of a page with the stored log."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from msgspec import json

from edge_api.http.response_models import LogEvent
from edge_api.settings import ApiSettings
from infra.contract.redis_store import codec
from infra.settings import RedisRestSettings
from tests.browser.browser import Browser, Collected
from tests.edge.stack import STREAM_KEY, TOKENS, Edge, Files, SimulatedWorker, client, create, serve

ADA = TOKENS["ada"]


@asynccontextmanager
async def api(browser: Browser, rest: RedisRestSettings, **changes: Any) -> AsyncIterator[Edge]:
    """Start an API that pages of the browser may call."""
    settings = ApiSettings(
        stream_ping_s=0.2, stream_token_keys=(STREAM_KEY,), cors_origins=(browser.origin,), **changes
    )
    async with serve(rest, Files(), settings) as edge:
        yield edge


async def new_run(edge: Edge, **fields: Any) -> str:
    async with client(edge, "ada") as ada:
        return await create(ada, **fields)


async def assert_complete(collected: Collected, worker: SimulatedWorker, run_id: str, *, after: int = 0) -> None:
    """Assert that the page received the stored events after `after`: each once, in order, the terminal event last."""
    reply = await worker.redis.command("XRANGE", f"run:{run_id}:log", "-", "+")
    stored = [json.decode(json.encode(LogEvent.of(event))) for event in codec.decode_entries(reply)]
    assert [event["seq"] for event in stored] == [*range(1, len(stored) + 1)]
    assert stored[-1]["type"] == "run.finished"
    assert collected.events == stored[after:]
    assert collected.ids == [*range(after + 1, len(stored) + 1)]
    assert (collected.gaps, collected.failures) == ([], [])
