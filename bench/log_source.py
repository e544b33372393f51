"""Process that logs at a steady rate: `python -m bench.log_source KIND NAME RATE SECONDS`.

KIND `run`: log into the run NAME, which must be ready, through the worker's emitter and archiver.
KIND `channel`: send one PUBLISH per event to the channel NAME, as the lower bound of the cost.
Prints `ready`, starts at the first line on stdin, and at the end prints one line of JSON:
`{"made": COUNT, "sent": [[LAST_SEQ, TIME], ...]}`, where TIME is the sending time of the batch in s since
the epoch.
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
from worker.settings import WorkerSettings

LEASE_MS = 3_600_000
TICK_S = 0.002


class TimedStore(WorkQueue):
    """Work queue that records the time of each emitted batch, with the sequence number of its last event."""

    def __init__(self, redis: RedisTcp) -> None:
        super().__init__(redis)
        self.seq = 0
        self.sent: list[tuple[int, float]] = []

    async def emit(self, lease: Lease, writes: Writes) -> LeaseReply:
        self.seq += len(writes.events)
        self.sent.append((self.seq, time.time()))
        return await super().emit(lease, writes)


def line(number: int) -> str:
    """Return a line of output that starts with the current time in s since the epoch."""
    return f"{time.time():.6f} line {number} of a program that has a lot to say"


async def call_at_rate(rate: float, seconds: float, emit: Callable[[int], Awaitable[object]]) -> int:
    """Call `emit` `rate` times per second at even intervals; return the number of calls. Late calls are made up."""
    began, made = time.monotonic(), 0
    while (elapsed := time.monotonic() - began) < seconds:
        while made < rate * elapsed:
            await emit(made)
            made += 1
        await asyncio.sleep(min(1 / rate, TICK_S) if rate > 50 else 1 / rate / 10)
    return made


async def log_run(redis: RedisTcp, run_id: str, rate: float, seconds: float) -> None:
    """Log into a run through the worker's emitter and archiver."""
    workspaces = Workspaces(S3Settings.from_env(Env(os.environ)))
    window_s = WorkerSettings.from_env(Env(os.environ)).log_window_s
    store = TimedStore(redis)
    claims = (await store.claim("bench", 100, lease_ms=LEASE_MS)).claims
    claim = next(claim for claim in claims if claim.run.id == run_id)
    store.seq = claim.run.seq
    lease, archiver = Lease(run_id, claim.run.fence), Archiver(store, workspaces.logs, claim)
    emitter = LogEmitter(store, lease, lambda _: None, archiver, window_s)
    await wait_for_start()
    made = await call_at_rate(
        rate, seconds, lambda number: emitter.emit(ToolOutput(stream="stdout", text=line(number)), step=0)
    )
    writes = await emitter.close()
    writes.events.append(new_event(RunFinished(status="succeeded")))
    await store.finish(lease, Status.SUCCEEDED, writes)
    await archiver.finish(len(writes.events))
    workspaces.close()
    print(json.dumps({"made": made, "sent": store.sent}), flush=True)


async def log_channel(redis: RedisTcp, channel: str, rate: float, seconds: float) -> None:
    """Publish one message per event; Redis neither stores nor numbers them."""
    await wait_for_start()

    async def publish(number: int) -> None:
        data = {"stream": "stdout", "text": line(number)}
        await redis.command("PUBLISH", channel, json.dumps({"seq": number + 1, "data": data}, separators=(",", ":")))

    made = await call_at_rate(rate, seconds, publish)
    await redis.command("PUBLISH", channel, "end")
    print(json.dumps({"made": made, "sent": []}), flush=True)


async def wait_for_start() -> None:
    """Print `ready` and wait for a line on stdin."""
    print("ready", flush=True)
    # End of file: the benchmark process has ended, and its stack with it.
    if not await asyncio.to_thread(sys.stdin.readline):
        sys.exit("stdin was closed before the start line")


async def main(kind: str, name: str, rate: float, seconds: float) -> None:
    """Log as KIND says."""
    redis = RedisTcp(RedisTcpSettings.from_env(Env(os.environ)))
    await {"run": log_run, "channel": log_channel}[kind](redis, name, rate, seconds)
    await redis.close()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4])))
