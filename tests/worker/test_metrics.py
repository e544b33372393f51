"""`GET /metrics` of a worker process: every number against the truth of Redis, of the object store and of the load."""

import asyncio
import codecs
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from infra import metrics
from infra.contract.queue import ClaimReply
from infra.contract.redis_store.scripts import load
from infra.contract.runs import PlanStep
from infra.settings import RedisTcpSettings, S3Settings
from infra.workspace import Workspaces
from tests.chaos.processes import Process
from tests.support.command_counts import billed_commands
from tests.support.faulty_s3 import Exchange, faulty_s3
from tests.support.monitor import Monitor, monitored
from tests.support.redis import OwnValkey, free_port
from tests.support.s3 import variables_of
from tests.support.waiting import until
from tests.worker.rig import Rig
from worker import loop_lag

GENEROUS_S = 60.0
SCRAPES = 20
TEXT = "four"
SCRIPTS = {name: load(name) for name in ("claim", "emit", "finish", "release", "renew", "trim", "wait")}
OPERATIONS = {"PUT": "PutObject", "GET": "GetObject", "DELETE": "DeleteObject"}

Samples: TypeAlias = Mapping[tuple[str, ...], float]
"""Value of a series by its name and the values of its labels, in the alphabetical order of the labels."""


def say(text: str) -> PlanStep:
    return PlanStep(tool="message", args={"text": text})


class Traffic:
    """Requests and bytes of objects that went through a proxy."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str]] = Counter()
        self.sent = self.received = 0

    def forward(self, exchange: Exchange) -> None:
        """Pass a request on and count it."""
        response = b"".join(exchange.forward())
        head, _, body = response.partition(b"\r\n\r\n")
        status = int(head.split()[1])
        is_bucket = exchange.path.count("/") == 1
        operation = "HeadBucket" if is_bucket else OPERATIONS[exchange.method]
        self.requests[operation, f"{status // 100}xx"] += 1
        if operation == "PutObject":
            self.sent += len(exchange.body)
        if operation == "GetObject" and status < 400:
            self.received += len(body)
        exchange.client.sendall(response)


class ScrapedWorker:
    """Worker process with its metrics."""

    def __init__(self, redis: RedisTcpSettings, s3: S3Settings, folder: Path) -> None:
        self._url = f"http://127.0.0.1:{(port := free_port())}/metrics"
        variables = {
            **variables_of(s3),
            "REDIS_URL": redis.url,
            "WORKER_ROOT": str(folder / "work"),
            "WORKER_LEASE_S": "600",
            "WORKER_SLOTS": "3",
            "WORKER_HEALTH_PORT": str(port),
        }
        self.process = Process(
            "scraped", [sys.executable, "-m", "worker"], {**os.environ, **variables}, folder / "worker.log"
        )

    async def started(self) -> None:
        self.process.start()

        async def listens() -> bool:
            assert self.process.is_alive(), self.process.log()
            return "worker.fit" in self.process.log()

        await until(listens, "the worker has started", GENEROUS_S)

    async def has_logged(self, action: str, times: int) -> None:
        async def enough() -> bool:
            return self.process.log().count(f'"action":"{action}"') >= times

        await until(enough, f"the worker has logged {action} {times} times", GENEROUS_S)

    async def samples(self) -> Samples:
        """Scrape the worker."""
        async with httpx.AsyncClient() as http:
            answer = await http.get(self._url, timeout=GENEROUS_S)
        assert answer.headers["content-type"] == metrics.CONTENT_TYPE
        return read_samples(answer.text)


def read_samples(text: str) -> Samples:
    return {
        (sample.name.removeprefix("swissbrain_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("swissbrain_") and not sample.name.endswith("_bucket")
    }


def matching(samples: Samples, name: str) -> dict[tuple[str, ...], float]:
    """Return the series of a metric by the values of their labels, without those that never counted."""
    return {key[1:]: value for key, value in samples.items() if key[0] == name and value}


def kinds(monitor: Monitor) -> Counter[tuple[str, ...]]:
    """Count the commands that Redis has seen, by command and script."""
    names = Counter[tuple[str, ...]]()
    for command, *words in monitor.commands():
        by_text = next((name for name, script in SCRIPTS.items() if words and _text(words[0]) == script.text), "")
        by_digest = next((name for name, script in SCRIPTS.items() if words and words[0] == script.sha1), "")
        names[command, by_text or by_digest] += 1
    return names


def emitted(words: Sequence[str]) -> int:
    """Return the number of events in a command, if it is the script `emit`."""
    emit = SCRIPTS["emit"]
    is_emit = words[:2] == ("evalsha", emit.sha1)
    return int(words[3 + int(words[2]) + emit.args.index("count")]) if is_emit else 0


def _text(word: str) -> str:
    return codecs.escape_decode(word.encode())[0].decode()


@pytest.fixture
async def scraped(
    server: OwnValkey, s3: S3Settings, workspaces: Workspaces, tmp_path: Path
) -> AsyncIterator[tuple[ScrapedWorker, Traffic]]:
    traffic = Traffic()
    with faulty_s3(s3) as proxy:
        proxy.always = traffic.forward
        worker = ScrapedWorker(server.settings, proxy.settings, tmp_path)
        yield worker, traffic
        worker.process.end()


async def prepare(rig: Rig) -> None:
    """Leave a queue with lost runs: one to do again, one cancelled, one out of attempts; a broken and a late one."""
    for _ in range(3):
        await rig.submit(plan=[say("lost")], max_attempts=2)
    lost = await rig.store.claim("lost", 3, lease_ms=1)
    _, cancelled, failed = [claim.run.id for claim in lost.claims]
    await rig.store.cancel(cancelled)
    await rig.redis.command("HSET", f"run:{failed}", "attempt", "2")
    broken = await rig.submit(plan=[say("broken")])
    await rig.redis.command("HDEL", f"run:{broken}", "priority", "status")
    late = await rig.submit(plan=[say("late")], queue_ttl_s=1)
    await rig.redis.command("HSET", f"run:{late}", "queued_ms", "1", "queue_ttl_ms", "1")
    for text in ("a", "b", "c"):
        await rig.submit(plan=[say(text)])
    await rig.submit(
        plan=[
            PlanStep(tool="file_write", args={"path": "a.txt", "content": TEXT}),
            PlanStep(tool="file_read", args={"path": "a.txt"}),
        ]
    )
    await rig.submit(plan=[PlanStep(tool="file_read", args={"path": "missing.txt"})])


async def test_every_counter_of_a_worker_agrees_with_the_truth(
    own: Rig, server: OwnValkey, scraped: tuple[ScrapedWorker, Traffic]
) -> None:
    worker, traffic = scraped
    await prepare(own)
    await own.redis.command("SCRIPT", "FLUSH")
    await own.redis.command("SCRIPT", "LOAD", SCRIPTS["emit"].text)  # others are sent as text once
    with monitored(server.settings) as monitor:
        await worker.started()
        await worker.has_logged("run.outcome_written", 6)

        async def is_idle() -> bool:
            found = await worker.samples()
            return found["worker_runs",] == 0 and matching(found, "redis_commands_total") == dict(kinds(monitor))

        await until(is_idle, "the commands that Redis has seen are those that the worker has counted", GENEROUS_S)
        samples, wanted = await worker.samples(), kinds(monitor)
        assert samples["log_events_total",] == sum(map(emitted, monitor.commands()))
    assert matching(samples, "claims_total") == {("answered",): wanted["evalsha", "claim"]}

    assert matching(samples, "runs_claimed_total") == {("new",): 5, ("again",): 1}
    assert matching(samples, "runs_recovered_total") == {("lease_expired",): 3}
    assert samples["runs_set_aside_total",] == 1
    assert matching(samples, "attempts_ended_total") == {("succeeded",): 5, ("failed",): 1}
    assert matching(samples, "runs_ended_total") == {
        ("", "succeeded"): 5,
        ("other", "failed"): 1,
        ("expired", "failed"): 1,
        ("worker_lost", "failed"): 1,
        ("", "cancelled"): 1,
    }
    assert samples["queue_wait_seconds_count",] == 5
    assert matching(samples, "step_duration_seconds_count") == {("succeeded",): 6, ("failed",): 1}
    assert matching(samples, "tool_call_duration_seconds_count") == {
        ("succeeded", "message"): 4,
        ("succeeded", "file_write"): 1,
        ("succeeded", "file_read"): 1,
        ("failed", "file_read"): 1,
    }
    assert samples["emit_duration_seconds_count",] == wanted["evalsha", "emit"]
    assert samples["lease_renewals_failed_total",] == 0

    assert matching(samples, "s3_requests_total") == dict(traffic.requests)
    assert (samples["s3_sent_bytes_total",], samples["s3_received_bytes_total",]) == (traffic.sent, traffic.received)
    assert traffic.sent >= len(TEXT)

    gauges = ("worker_slots", "worker_runs", "queue_ready_runs")
    assert [samples[name,] for name in gauges] == [3, 0, 0]
    assert matching(samples, "worker_fit") == {("sandbox",): 1, ("object store",): 1}
    assert 0 <= samples["queue_observed_age_seconds",] < GENEROUS_S
    assert 0 <= samples["redis_reply_age_seconds",] < GENEROUS_S
    assert samples["event_loop_lag_seconds_count",] >= 0
    assert not matching(samples, "executor_observed_age_seconds")
    assert not matching(samples, "model_exchanges_total")

    before = await billed_commands(own.redis)
    for _ in range(SCRAPES):
        await worker.samples()
    assert await billed_commands(own.redis) == before


def test_labels_take_no_value_that_a_user_has_written() -> None:
    metrics.tool_called("name-of-a-tool-of-a-user", "succeeded", 0.1)
    metrics.run_ended("failed", "code-of-a-user")
    metrics.attempt_ended("reason-of-a-user")
    assert b"of-a-user" not in metrics.page()
    assert b'tool="other"' in metrics.page()


def test_the_oldest_wait_is_kept_while_runs_are_left() -> None:
    metrics.QUEUE_OLDEST.set(7)
    empty = ClaimReply([], [], None)
    left = ClaimReply([], [], None, {}, type(empty.tally)(ready=2))
    metrics.claim_answered(left)
    assert (metrics.QUEUE_OLDEST._value.get(), metrics.QUEUE_READY._value.get()) == (7, 2)
    metrics.claim_answered(empty)
    assert metrics.QUEUE_OLDEST._value.get() == 0


async def test_a_slow_loop_shows_as_lag() -> None:
    def lag_s() -> float:
        return metrics.REGISTRY.get_sample_value("swissbrain_event_loop_lag_seconds_sum") or 0

    before = lag_s()
    task = asyncio.create_task(loop_lag.measure_forever())

    async def shows() -> bool:
        time.sleep(0.3)  # noqa: ASYNC251 - what holds the loop
        return lag_s() - before > 0.1

    await until(shows, "the lag is measured")
    task.cancel()
