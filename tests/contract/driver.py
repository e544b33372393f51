"""Driver that brings runs into any status, and reads Redis directly."""

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from infra.contract.keys import EXPIRIES
from infra.contract.log import TERMINAL_EVENT, NewEvent
from infra.contract.queue import Claim, Lease, Writes
from infra.contract.redis import Redis, Reply
from infra.contract.runs import PlanStep, RunSpec
from infra.contract.states import TERMINAL, Outcome, Status
from tests.support.requests import answers, question
from tests.support.run_store import RunStore

LEASE_MS = 60_000
USER = "ada"
WORKERS = "jobs:workers"
KEYS_WITHOUT_TTL = {
    "jobs:pending",
    "jobs:ready",
    "jobs:delayed",
    "jobs:leases",
    "jobs:waiting",
    "jobs:dead",
    "jobs:unreadable",
    WORKERS,
}

SPEC = RunSpec(plan=[PlanStep(tool="message", args={"text": "hello"})])


def event(number: int = 0) -> NewEvent:
    return NewEvent(ts=1, type="log", data={"n": number})


END = NewEvent(ts=1, type=TERMINAL_EVENT, data={"status": "succeeded"})


async def keys_without_ttl(redis: Redis) -> list[str]:
    """Return the keys that would never expire but must: keys of finished and created runs, and unknown keys."""
    found = []
    for key in strings(await redis.command("KEYS", "*")):
        if key in KEYS_WITHOUT_TTL or await redis.command("TTL", key) != -1:
            continue
        run = key.removesuffix(":log")
        status = await redis.command("HGET", run, "status") if await redis.command("TYPE", run) == "hash" else None
        if status is None or status == "created" or Status(str(status)) in TERMINAL:
            found.append(key)
    return found


def strings(reply: Reply) -> list[str]:
    assert isinstance(reply, list)
    return [str(item) for item in reply]


async def expire_request(redis: Redis, run_id: str, name: str) -> None:
    """Let an open request of a waiting run expire."""
    texts = json.loads(str(await redis.command("HGET", f"run:{run_id}", "requests")))
    requests = [json.loads(text) for text in texts]
    changed = [each | {"expires_ms": 1} if each["id"] == name else each for each in requests]
    await redis.command("HSET", f"run:{run_id}", "requests", json.dumps([json.dumps(each) for each in changed]))
    await redis.command("ZADD", "jobs:waiting", 1, run_id)
    await redis.command("ZADD", "jobs:delayed", 1, EXPIRIES)


async def delete(store: RunStore, run_id: str) -> tuple[Outcome, Status | None]:
    """Do both steps of a deletion: mark the run, then delete it."""
    await store.mark_deleting(run_id)
    return await store.delete(run_id, USER)


class Driver:
    """Creates runs in a given status, and lists the calls that lead to each next status."""

    def __init__(self, store: RunStore, redis: Redis) -> None:
        self.store = store
        self.redis = redis

    async def create(self, *, start: bool = True, spec: RunSpec = SPEC) -> str:
        run_id = f"run_{uuid.uuid4().hex}"
        outcome, record = await self.store.create(run_id, USER, spec, start=start, digest="d")
        assert outcome is Outcome.OK
        assert record
        return run_id

    async def claim(self, *, lease_ms: int = LEASE_MS) -> tuple[Claim, Lease]:
        claimed = await self.store.claim("w", 1, lease_ms=lease_ms)
        (claim,) = claimed.claims
        return claim, Lease(claim.run.id, claim.run.fence)

    async def in_status(self, status: Status) -> tuple[str, Lease]:
        """Create a run in the given status; return its id and last lease (a made-up lease if it was never claimed)."""
        run_id = await self.create(start=status is not Status.CREATED)
        if status in {Status.CREATED, Status.QUEUED}:
            return run_id, Lease(run_id, 1)
        _, lease = await self.claim()
        if status is Status.WAITING:
            await self.store.wait(lease, Writes(), [question()])
        elif status in TERMINAL:
            await self.store.finish(lease, status, Writes(events=[END]))
        if status is not Status.RUNNING:
            lease.batch += 1
        return run_id, lease

    def calls_into(self, run_id: str, lease: Lease) -> dict[Status, list[Callable[[], Awaitable[Any]]]]:
        """Return, for each status, every call that would bring the run into it."""
        store = self.store

        def finish(status: Status) -> Callable[[], Awaitable[Any]]:
            return lambda: store.finish(lease, status, Writes(events=[END]))

        async def expire() -> None:
            status = (await store.head(run_id)).status
            if status is Status.WAITING:
                await expire_request(self.redis, run_id, "q")
            if status is Status.QUEUED:
                await self.redis.command("HSET", f"run:{run_id}", "queue_ttl_ms", -1)
            await store.claim("other", 1, lease_ms=LEASE_MS)

        return {
            Status.CREATED: [lambda: store.create(run_id, USER, SPEC, start=False, digest="other")],
            Status.QUEUED: [
                lambda: store.start(run_id),
                lambda: store.retry(run_id, token="t"),
                lambda: store.resume(run_id, answers("q"), by=USER, token="t"),
                lambda: store.release(lease, Writes(events=[event()]), delay_ms=0, burn=False),
                lambda: store.release_unable(lease, Writes(events=[event()]), delay_ms=0),
            ],
            Status.RUNNING: [lambda: store.claim("other", 1, lease_ms=LEASE_MS)],
            Status.WAITING: [lambda: store.wait(lease, Writes(), [question()])],
            Status.SUCCEEDED: [finish(Status.SUCCEEDED)],
            Status.FAILED: [finish(Status.FAILED), expire],
            Status.CANCELLED: [finish(Status.CANCELLED), lambda: store.cancel(run_id)],
        }

    async def dump(self) -> dict[str, Reply]:
        """Return the content of all keys; TTLs and the times of workers are left out, which change with time alone."""
        content: dict[str, Reply] = {}
        for key in sorted({*strings(await self.redis.command("KEYS", "*"))} - {WORKERS}):
            kind = await self.redis.command("TYPE", key)
            read_command = {
                "hash": ("HGETALL", key),
                "list": ("LRANGE", key, 0, -1),
                "zset": ("ZRANGE", key, 0, -1, "WITHSCORES"),
                "stream": ("XRANGE", key, "-", "+"),
            }[str(kind)]
            content[key] = await self.redis.command(*read_command)
            if kind == "hash":  # Redis does not promise an order of fields
                flat = strings(content[key])
                content[key] = sorted(map(": ".join, zip(flat[::2], flat[1::2], strict=True)))  # type: ignore[assignment]
        return content

    async def make_due(self, run_id: str) -> None:
        """Make a delayed run due now. A real delay would be a race: the test must look at the run before it is due."""
        assert await self.redis.command("ZADD", "jobs:delayed", "XX", "CH", 1, run_id) == 1

    async def let_lease_expire(self, lease_ms: int) -> None:
        """Sleep until a lease of `lease_ms` has expired by the server's clock."""
        await asyncio.sleep(lease_ms / 1000 + 0.005)
