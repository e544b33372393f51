"""A process that logs at a steady rate: `python -m bench.log_source KIND NAME RATE SECONDS`, begun by a line on stdin.

KIND `run`: as the worker does it, through its emitter and archiver, into the run NAME, which must be ready.
KIND `channel`: the floor, one PUBLISH an event. It prints `ready`, and at the end one line of JSON:
`{"made": how many, "sent": [[last seq, when], ...]}` with when each batch was handed to Redis, in s since the epoch.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable

import uvloop

from infra.contract.events import RunFinished, ToolOutput
from infra.contract.queue import Lease, LeaseReply, Writes
from infra.contract.redis_store.work_queue import WorkQueue
from infra.contract.states import Status
from infra.redis_tcp import RedisTcp
from infra.settings import Env, RedisTcpSettings, S3Settings
from infra.workspace import Workspaces
from worker.run.archiver import Archiver
from worker.run.emitter import LogEmitter, new_event

LEASE_MS = 3_600_000
TICK_S = 0.002


class TimedStore(WorkQueue):
    """Notes when each batch was handed over."""

    def __init__(self, redis: RedisTcp, first: int = 0) -> None:
        super().__init__(redis)
        self.seq = first
        self.sent: list[tuple[int, float]] = []

    async def emit(self, lease: Lease, writes: Writes) -> LeaseReply:
        self.seq += len(writes.events)
        self.sent.append((self.seq, time.time()))
        return await super().emit(lease, writes)


def line(number: int) -> str:
    """A line of output: when it was made, and some text."""
    return f"{time.time():.6f} line {number} of a program that has a lot to say"


async def steadily(rate: float, seconds: float, emit: Callable[[int], Awaitable[object]]) -> int:
    """Call `emit` so often a second, evenly; how often it was called. One that is late catches up."""
    began, made = time.monotonic(), 0
    while (passed := time.monotonic() - began) < seconds:
        while made < rate * passed:
            await emit(made)
            made += 1
        await asyncio.sleep(min(1 / rate, TICK_S) if rate > 50 else 1 / rate / 10)
    return made


async def log_run(redis: RedisTcp, run_id: str, rate: float, seconds: float) -> None:
    """As the worker does it."""
    workspaces = Workspaces(S3Settings.from_env(Env(os.environ)))
    store = TimedStore(redis)
    claims = (await store.claim("bench", 100, lease_ms=LEASE_MS)).claims
    claim = next(claim for claim in claims if claim.run.id == run_id)
    store.seq = claim.run.seq
    lease, archiver = Lease(run_id, claim.run.fence), Archiver(store, workspaces.logs, claim)
    emitter = LogEmitter(store, lease, lambda _: None, archiver)
    await begun()
    made = await steadily(
        rate, seconds, lambda number: emitter.emit(ToolOutput(stream="stdout", text=line(number)), step=0)
    )
    writes = await emitter.close()
    writes.events.append(new_event(RunFinished(status="succeeded")))
    await store.finish(lease, Status.SUCCEEDED, writes)
    await archiver.finish(len(writes.events))
    workspaces.close()
    print(json.dumps({"made": made, "sent": store.sent}), flush=True)


async def log_channel(redis: RedisTcp, channel: str, rate: float, seconds: float) -> None:
    """The floor: nothing kept, nothing numbered by Redis, one message an event."""
    await begun()

    async def publish(number: int) -> None:
        data = {"stream": "stdout", "text": line(number)}
        await redis.command("PUBLISH", channel, json.dumps({"seq": number + 1, "data": data}, separators=(",", ":")))

    made = await steadily(rate, seconds, publish)
    await redis.command("PUBLISH", channel, "end")
    print(json.dumps({"made": made, "sent": []}), flush=True)


async def begun() -> None:
    """Wait for the line on stdin; leave if there is none: whoever measures has gone, and the stack with it."""
    print("ready", flush=True)
    if not await asyncio.to_thread(sys.stdin.readline):
        sys.exit("nobody measures")


async def main(kind: str, name: str, rate: float, seconds: float) -> None:
    """Log."""
    redis = RedisTcp(RedisTcpSettings.from_env(Env(os.environ)))
    await {"run": log_run, "channel": log_channel}[kind](redis, name, rate, seconds)
    await redis.close()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4])))
