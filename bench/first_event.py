"""Time from the creation of a run to the first log event on its stream, on an idle stack. Target: p50 ≤ 10 ms."""

import asyncio
import time

from bench.lab import NOOP, Lab, milliseconds, table

RUNS = 200
PAUSE_S = 0.02


async def run(lab: Lab) -> None:
    """Measure and print."""
    created, first, finished = [], [], []
    processors = lab.processor_time()
    for _ in range(RUNS):
        began = time.perf_counter()
        run_id = await lab.create(NOOP)
        created.append(time.perf_counter() - began)
        arrivals = [time.perf_counter() - began async for _ in lab.events(run_id)]
        first.append(arrivals[0])
        finished.append(time.perf_counter() - began)
        await asyncio.sleep(PAUSE_S)
    name, used = processors.row()
    rows = [
        ["the run is acknowledged", *milliseconds(created)],
        ["the first event arrives on its stream", *milliseconds(first)],
        ["its stream ends", *milliseconds(finished)],
        [name, used, "", ""],
    ]
    title = f"Time from the create request of a one-step run, {RUNS} runs, idle stack"
    table(title, ["until", "p50 ms", "p99 ms", "max ms"], rows)
