"""Fixtures: the API, a simulated worker that publishes, a real stand-in of QStash, and a receiver of webhooks."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest_asyncio
from standardwebhooks import Webhook

from edge_api.schedules_service import Scheduling
from edge_api.webhooks_service import Webhooks
from infra.contract.queue import Lease, Writes
from infra.contract.redis import Redis
from infra.contract.redis_store.schedule_store import ScheduleStore
from infra.contract.redis_store.webhook_store import WebhookStore
from infra.contract.runs import RunError
from infra.contract.states import Outcome, Status
from infra.event_publisher import EventPublisher
from infra.redis_tcp import RedisTcp
from infra.settings import RedisRestSettings, RedisTcpSettings
from infra.webhook_http import WebhookHttp, user_secret
from tests.edge.stack import PLAN, Edge, Files, SimulatedWorker, client, finished, serve
from tests.support.qstash import (
    Destination,
    FaultyQStash,
    NastyTransport,
    destination,
    qstash_settings,
    stand_in,
    stand_in_settings,
)
from tests.support.waiting import until
from tests.support.web_site import Names

KEYS = ("webhook-key-of-the-tests-" + "n" * 20, "webhook-key-of-the-tests-" + "o" * 20)
NAME = "receiver.test"
OUTBOX, USERS = "webhooks:outbox", "webhooks:users"
DEADLINE_S = 30.0
"""Time for the answer of a receiver."""


@dataclass
class Hooks:
    """Everything that takes part in a delivery."""

    edge: Edge
    ada: httpx.AsyncClient
    worker: SimulatedWorker
    publisher: EventPublisher
    """Of the worker."""
    qstash: FaultyQStash
    receiver: Destination
    redis: RedisTcp
    network: NastyTransport
    names: Names
    url: str
    secret: str

    async def create(self, **fields: Any) -> str:
        """Create a run with a webhook, and return its id."""
        answer = await self.ada.post("/agent/runs", json={**PLAN, "webhook_url": self.url, **fields})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["run_id"])

    async def end(self, status: Status = Status.SUCCEEDED, error: RunError | None = None) -> Lease:
        """Claim the next run and end it, without publishing its event."""
        lease = await self.worker.claim()
        done = await self.worker.store.finish(lease, status, Writes(events=[finished(status)]), error=error)
        assert done is Outcome.OK
        return lease

    async def deliveries(self, run_id: str) -> list[dict[str, Any]]:
        answer = await self.ada.get(f"/agent/runs/{run_id}/webhooks")
        assert answer.status_code == 200, answer.text
        return list(answer.json()["events"])

    async def state(self, run_id: str, state: str) -> dict[str, Any]:
        """Return the last event of a run once it has this state."""

        async def reached() -> bool:
            return bool(found := await self.deliveries(run_id)) and found[-1]["state"] == state

        await until(reached, f"the event is {state}")
        return (await self.deliveries(run_id))[-1]

    async def settled(self) -> None:
        """Wait until the outbox and the queue of QStash are empty."""

        async def empty() -> bool:
            return (
                await self.redis.command("ZCARD", OUTBOX) == 0
                and await self.redis.command("ZCARD", "{qstash}:due") == 0
            )

        await until(empty, "all messages are delivered")
        assert await self.redis.command("EXISTS", USERS) == 0
        assert await self.redis.command("ZSCORE", "jobs:delayed", "*webhooks") is None

    async def overdue(self) -> None:
        """Let all entries of the outbox be overdue now."""
        for entry in await self.entries():
            await self.redis.command("ZADD", OUTBOX, 1, entry)
        await self.redis.command("ZADD", "jobs:delayed", "XX", 1, "*webhooks")

    async def entries(self) -> list[str]:
        found = await self.redis.command("ZRANGE", OUTBOX, 0, -1)
        assert isinstance(found, list)
        return [str(each) for each in found]

    def bodies(self) -> list[Any]:
        """Return the events that the receiver has got; each is verified by the library of Standard Webhooks."""
        return [Webhook(self.secret).verify(call.body, call.headers) for call in self.receiver.calls]


@pytest_asyncio.fixture(loop_scope="session")
async def hooks(
    redis: RedisTcp, rest_settings: RedisRestSettings, tcp_settings: RedisTcpSettings
) -> AsyncIterator[Hooks]:
    network, names = NastyTransport(), Names(receiver_test=[["127.0.0.1"]])
    made: list[FaultyQStash] = []
    async with destination() as receiver, stand_in(stand_in_settings(tcp_settings), network) as qstash_url:
        port = urlsplit(receiver.url).port
        assert port
        hosts = frozenset({(NAME, port)})

        def client_of(public_url: str) -> FaultyQStash:
            if not made:
                made.append(FaultyQStash(qstash_settings(qstash_url, public_url)))
            return made[0]

        def webhooks(rest: Redis, public_url: str) -> Webhooks:
            store = WebhookStore(rest)
            publisher = EventPublisher(store, client_of(public_url))
            return Webhooks(store, publisher, lambda: WebhookHttp(hosts, resolve=names, deadline_s=DEADLINE_S), KEYS)

        def scheduling(rest: Redis, public_url: str) -> Scheduling:
            return Scheduling(ScheduleStore(rest), client_of(public_url))

        async with (
            serve(rest_settings, Files(), scheduling=scheduling, webhooks=webhooks) as edge,
            client(edge, "ada") as ada,
        ):
            publisher = EventPublisher(WebhookStore(redis), made[0])
            yield Hooks(
                edge,
                ada,
                SimulatedWorker(redis, publisher),
                publisher,
                made[0],
                receiver,
                redis,
                network,
                names,
                f"http://{NAME}:{port}/hook?token=t",
                user_secret(KEYS[0], "ada"),
            )
        await made[0].close()
