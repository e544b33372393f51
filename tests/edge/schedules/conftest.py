"""Fixtures: the API with a real stand-in of QStash, whose deliveries can be nasty."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest_asyncio

from edge_api.schedules_service import Scheduling
from infra.contract.redis import Redis
from infra.contract.redis_store.schedule_store import ScheduleStore
from infra.redis_tcp import RedisTcp
from infra.settings import RedisRestSettings, RedisTcpSettings
from tests.edge.stack import PLAN, Edge, Files, client, serve
from tests.support.qstash import (
    FaultyQStash,
    NastyTransport,
    qstash_settings,
    sdk,
    stand_in,
    stand_in_settings,
    wake,
)
from tests.support.waiting import until

MONTHLY = {"cron": "0 8 1 * *", "timezone": "Europe/Zurich", "run": PLAN}


@dataclass
class Site:
    """The API, its client of QStash, and the stand-in."""

    edge: Edge
    qstash: FaultyQStash
    stand_in_url: str
    redis: RedisTcp
    network: NastyTransport = field(default_factory=NastyTransport)

    async def fire(self, schedule_id: str, at_ms: int = 1) -> None:
        """Let a schedule be due now."""
        await self.redis.command("ZADD", "{qstash}:ticks", at_ms, schedule_id)
        await wake(self.stand_in_url)

    async def settled(self) -> None:
        """Wait until every tick is delivered; the message that wakes the stand-in stays."""

        async def empty() -> bool:
            # In this order: a tick that is no longer due has become a message.
            late = await self.redis.command("ZCOUNT", "{qstash}:ticks", "-inf", 10_000)
            return late == 0 and await self.redis.command("ZCARD", "{qstash}:due") == 1

        await until(empty, "every tick is delivered")

    async def known(self) -> dict[str, str]:
        """Return the cron expressions of all schedules that QStash knows, by their ids."""
        async with sdk(self.stand_in_url) as qstash:
            return {each.schedule_id: each.cron for each in await qstash.schedule.list()}

    async def dead_letters(self) -> int:
        async with sdk(self.stand_in_url) as qstash:
            return len((await qstash.dlq.list()).messages)


@pytest_asyncio.fixture(loop_scope="session")
async def site(
    redis: RedisTcp, rest_settings: RedisRestSettings, tcp_settings: RedisTcpSettings
) -> AsyncIterator[Site]:
    network = NastyTransport()
    made: list[FaultyQStash] = []
    async with stand_in(stand_in_settings(tcp_settings), network) as url:

        def scheduling(rest: Redis, public_url: str) -> Scheduling:
            made.append(FaultyQStash(qstash_settings(url, public_url)))
            return Scheduling(ScheduleStore(rest), made[0])

        async with serve(rest_settings, Files(), scheduling=scheduling) as edge:
            yield Site(edge, made[0], url, redis, network)
        await made[0].close()


@pytest_asyncio.fixture(loop_scope="session")
async def ada(site: Site) -> AsyncIterator[httpx.AsyncClient]:
    async with client(site.edge, "ada") as http:
        yield http


@pytest_asyncio.fixture(loop_scope="session")
async def bob(site: Site) -> AsyncIterator[httpx.AsyncClient]:
    async with client(site.edge, "bob") as http:
        yield http


async def make(http: httpx.AsyncClient, **fields: Any) -> str:
    """Create a schedule and return its id."""
    answer = await http.post("/agent/schedules", json={**MONTHLY, **fields})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["schedule_id"])


async def runs_of(http: httpx.AsyncClient, schedule_id: str) -> list[dict[str, Any]]:
    """Return the runs of a schedule, newest first."""
    answer = await http.get("/agent/runs", params={"metadata.schedule": schedule_id})
    return list(answer.json()["runs"])
