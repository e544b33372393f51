"""Create → first log event on the client's stream, on an idle stack. Target: p50 ≤ 50 ms."""

import asyncio
import time

from bench.lab import NOOP, Lab, milliseconds, table

TRIES = 100


async def run(lab: Lab) -> None:
    """Measure and print."""
    created, first, finished = [], [], []
    for _ in range(TRIES):
        began = time.perf_counter()
        run_id = await lab.create(NOOP)
        created.append(time.perf_counter() - began)
        seen = [time.perf_counter() - began async for _ in lab.events(run_id)]
        first.append(seen[0])
        finished.append(time.perf_counter() - began)
        await asyncio.sleep(0.02)
    rows = [
        ["the run is acknowledged", *milliseconds(created)],
        ["its first event is on the stream", *milliseconds(first)],
        ["its stream has ended", *milliseconds(finished)],
    ]
    table(f"From the call of create, {TRIES} one-step runs, idle stack", ["until", "p50 ms", "p99 ms", "max ms"], rows)
