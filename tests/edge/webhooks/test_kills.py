"""The API, the stand-in of QStash and Valkey are killed at any moment: each event has its accepted delivery."""

import asyncio
import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from standardwebhooks import Webhook
from starlette.responses import Response

from infra.contract.redis_store.webhook_store import WebhookStore
from infra.event_publisher import EventPublisher
from infra.qstash import QStashPublisher
from infra.redis_tcp import RedisTcp
from infra.settings import RedisTcpSettings
from infra.webhook_http import user_secret
from tests.edge.stack import KEYS, PLAN, TOKENS, SimulatedWorker
from tests.edge.webhooks.conftest import OUTBOX
from tests.support.qstash import (
    CURRENT_KEY,
    NEXT_KEY,
    QSTASH_TOKEN,
    Destination,
    Received,
    destination,
    qstash_settings,
    wake,
)
from tests.support.redis import TOKEN, DurableValkey, accepts, free_port
from tests.support.waiting import until

RUNS = 24
KILLS = RUNS // 4
KEY = "webhook-key-of-the-tests-" + "k" * 20


class Killable:
    """Process of a module, killed and started again."""

    def __init__(self, module: str, port: int, **environment: str) -> None:
        self.module, self.port = module, port
        self.url = f"http://127.0.0.1:{port}"
        self.environment = {**os.environ, **environment}
        self.start()

    def start(self) -> None:
        self.running = subprocess.Popen(
            [sys.executable, "-m", self.module], env=self.environment, stderr=subprocess.DEVNULL
        )

    def kill(self) -> None:
        self.running.kill()
        self.running.wait()


def processes(valkey: RedisTcpSettings, receiver: Destination) -> Sequence[Killable]:
    """Start and return the gateway, the stand-in and the API."""
    gateway, qstash, api = free_port(), free_port(), free_port()
    users = [{"user": each.user, "scopes": each.scopes, "sha256": each.sha256} for each in KEYS]
    keys = {
        "QSTASH_TOKEN": QSTASH_TOKEN,
        "QSTASH_CURRENT_SIGNING_KEY": CURRENT_KEY,
        "QSTASH_NEXT_SIGNING_KEY": NEXT_KEY,
    }
    return [
        Killable(
            "infra.gateway",
            gateway,
            GATEWAY_REDIS_URL=valkey.url,
            GATEWAY_TOKEN=TOKEN,
            GATEWAY_PORT=str(gateway),
        ),
        Killable(
            "infra.qstash_local",
            qstash,
            QSTASH_LOCAL_REDIS_URL=valkey.url,
            QSTASH_LOCAL_PORT=str(qstash),
            **keys,
        ),
        Killable(
            "edge_api",
            api,
            EDGE_PORT=str(api),
            EDGE_PUBLIC_URL=f"http://127.0.0.1:{api}",
            EDGE_WEBHOOK_KEY=KEY,
            EDGE_WEBHOOK_PRIVATE_HOSTS=urlsplit(receiver.url).netloc,
            QSTASH_URL=f"http://127.0.0.1:{qstash}",
            S3_ACCESS_KEY="a",
            S3_SECRET_KEY="s",
            SWISSBRAIN_API_KEYS=json.dumps(users),
            UPSTASH_REDIS_REST_URL=f"http://127.0.0.1:{gateway}",
            UPSTASH_REDIS_REST_TOKEN=TOKEN,
            **keys,
        ),
    ]


@pytest.mark.timeout(240)
async def test_each_event_has_one_accepted_delivery_through_kills(tmp_path: Path) -> None:
    dice = random.Random(11)
    valkey = DurableValkey(tmp_path)
    accepted: list[str] = []
    refused: set[str] = set()
    async with destination() as receiver:

        def accept(call: Received) -> Response:
            event = call.headers["webhook-id"]
            if event not in refused and dice.random() < 0.2:
                refused.add(event)
                return Response(status_code=500)
            accepted.append(event)
            return Response()

        receiver.answer = accept
        made = processes(valkey.settings, receiver)
        _, stand_in, api = made
        redis = RedisTcp(valkey.settings)
        qstash = QStashPublisher(qstash_settings(stand_in.url, api.url))
        publisher = EventPublisher(WebhookStore(redis), qstash)
        try:
            await _listen(made)
            async with httpx.AsyncClient(base_url=api.url, headers={"Authorization": f"Bearer {TOKENS['ada']}"}) as ada:
                runs = [await _create(ada, receiver.url) for _ in range(RUNS)]
            await _work(SimulatedWorker(redis, publisher), publisher, [valkey, stand_in, api], dice)
            await _listen(made)

            async def all_accepted() -> bool:
                if len(set(accepted)) < RUNS:
                    await _pass_time(redis, publisher, stand_in.url)
                return len(set(accepted)) == RUNS

            await until(all_accepted, "every event is accepted", timeout_s=120)
        finally:
            for each in made:
                each.kill()
            await qstash.close()
            await redis.close()
            valkey.stop()
    # Each run has one event, and each event one id, by which a receiver drops what it gets twice.
    assert sorted(each.rsplit("-", 2)[0] for each in set(accepted)) == sorted(runs)
    # Only if its first answer was lost with the process that had asked for it: `call` and `settle` are two steps.
    assert len(accepted) - RUNS <= 2 * KILLS
    for call in receiver.calls:
        Webhook(user_secret(KEY, "ada")).verify(call.body, call.headers)


async def _listen(started: Sequence[Killable]) -> None:
    async def listening() -> bool:
        return all(accepts(each.port) for each in started)

    await until(listening, "all processes listen", timeout_s=60)


async def _create(ada: httpx.AsyncClient, url: str) -> str:
    answer = await ada.post("/agent/runs", json={**PLAN, "webhook_url": f"{url}/hook"})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["run_id"])


async def _work(
    worker: SimulatedWorker, publisher: EventPublisher, victims: Sequence[DurableValkey | Killable], dice: random.Random
) -> None:
    """End all runs. After every fourth one a process is killed, and started again without waiting for it."""
    for number in range(RUNS):
        await worker.complete(events=0)
        if dice.random() < 0.3:
            publisher._noted.clear()  # as if the worker had died before it published the event
        await publisher.publish_noted()
        if number % 4 == 3:
            await asyncio.sleep(dice.random() * 0.05)
            victim = victims[number // 4 % len(victims)]
            if isinstance(victim, Killable):
                victim.kill()
            else:
                await victim.kill()
            victim.start()


async def _pass_time(redis: RedisTcp, publisher: EventPublisher, stand_in: str) -> None:
    """Let everything be due that a crash has left: entries of the outbox, messages of QStash, leases of attempts."""

    async def texts(*command: str) -> list[str]:
        reply = await redis.command(command[0], *command[1:])
        assert isinstance(reply, list)
        return [str(each) for each in reply]

    await asyncio.sleep(0.5)
    for key in (OUTBOX, "{qstash}:due"):
        for member in await texts("ZRANGE", key, "0", "-1"):
            await redis.command("ZADD", key, "XX", 1, member)
    for run in await texts("KEYS", "run:run_*[0-9a-f]"):
        for name in await texts("HKEYS", run):
            if name.endswith(":lease"):
                token = str(await redis.command("HGET", run, name)).partition(":")[0]
                await redis.command("HSET", run, name, f"{token}:1")
    await publisher.publish_overdue()
    await wake(stand_in)
