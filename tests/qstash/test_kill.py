"""The process of the stand-in is killed at any moment: no message that it acknowledged is lost."""

import asyncio
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from infra.redis_tcp import RedisTcp
from infra.settings import RedisTcpSettings
from tests.support.qstash import CURRENT_KEY, FAST, NEXT_KEY, QSTASH_TOKEN, Destination, stand_in, stand_in_settings
from tests.support.redis import DurableValkey, free_port
from tests.support.waiting import until

MESSAGES = 60
KILLS = 4


class Process:
    """`python -m infra.qstash_local`, killed and started again."""

    def __init__(self, redis: RedisTcpSettings) -> None:
        self.port = free_port()
        self.environment = {
            **os.environ,
            "QSTASH_LOCAL_REDIS_URL": redis.url,
            "QSTASH_LOCAL_PORT": str(self.port),
            "QSTASH_LOCAL_TIME_SCALE": str(FAST),
            "QSTASH_TOKEN": QSTASH_TOKEN,
            "QSTASH_CURRENT_SIGNING_KEY": CURRENT_KEY,
            "QSTASH_NEXT_SIGNING_KEY": NEXT_KEY,
        }
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "infra.qstash_local"]
        self.running = subprocess.Popen(command, env=self.environment, stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        self.running.send_signal(signal.SIGKILL)
        self.running.wait()


async def publish(http: httpx.AsyncClient, url: str, number: int) -> None:
    """Publish until it is acknowledged, as a client does whose answer was lost."""
    headers = {"Upstash-Timeout": "1s", "Upstash-Deduplication-Id": str(number), "Upstash-Retries": "20"}

    async def acknowledged() -> bool:
        try:
            answer = await http.post(f"/v2/publish/{url}", content=str(number), headers=headers)
        except httpx.TransportError:
            return False
        return answer.status_code in {201, 202}

    await until(acknowledged, "the stand-in acknowledges", timeout_s=60)


@pytest.mark.timeout(180)
async def test_every_acknowledged_message_arrives(
    redis: RedisTcp, tcp_settings: RedisTcpSettings, target: Destination
) -> None:
    dice = random.Random(7)
    process = Process(tcp_settings)
    headers = {"Authorization": f"Bearer {QSTASH_TOKEN}"}
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{process.port}", headers=headers, timeout=10) as http:
            await publish(http, target.url, 0)

            async def publish_all() -> None:
                for number in range(1, MESSAGES):
                    await publish(http, target.url, number)

            publishing = asyncio.create_task(publish_all())
            for _ in range(KILLS):
                seen = len(target.calls) + dice.randrange(1, 8)
                await target.wait_for(min(seen, MESSAGES))
                await asyncio.sleep(dice.random() * 0.02)
                process.kill()
                process.start()
            await publishing

            async def settled() -> bool:
                return await redis.command("ZCARD", "{qstash}:due") == 0

            await until(settled, "every message is settled", timeout_s=60)
    finally:
        process.kill()
    bodies = [int(call.body) for call in target.calls]
    assert set(bodies) == set(range(MESSAGES))
    # Duplicates come from kills alone: at most the deliveries under way at each.
    assert len(bodies) - MESSAGES <= KILLS * 32
    assert len({call.message_id for call in target.calls}) == MESSAGES
    assert await redis.command("ZCARD", "{qstash}:dead") == 0
    keys = await redis.command("KEYS", "{qstash}:message:*")
    assert keys == []


@pytest.mark.timeout(180)
async def test_a_killed_database_loses_no_acknowledged_message(tmp_path: Path, target: Destination) -> None:
    valkey = DurableValkey(tmp_path)
    headers = {"Authorization": f"Bearer {QSTASH_TOKEN}"}
    try:
        async with (
            stand_in(stand_in_settings(valkey.settings)) as url,
            httpx.AsyncClient(base_url=url, headers=headers, timeout=20) as http,
        ):
            for number in range(20):
                await publish(http, target.url, number)
                if number in {5, 12}:
                    await valkey.kill()
                    valkey.start()

            async def arrived() -> bool:
                return {int(call.body) for call in target.calls} == set(range(20))

            await until(arrived, "every message arrives", timeout_s=60)
    finally:
        valkey.stop()
