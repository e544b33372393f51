"""Time from a cancel until the tool's processes are dead and the run is cancelled. Target: p99 ≤ 1 s."""

import asyncio
import time

from bench.lab import Lab, milliseconds, table
from tests.support.processes import processes_with

RUNS = 50


async def run(lab: Lab) -> None:
    """Measure and print."""
    dead, cancelled = [], []
    for number in range(RUNS):
        # Each run sleeps for another number of seconds, so that its processes can be distinguished in /proc.
        marker = f"600.{number + 1:04}"
        run_id = await lab.create([{"tool": "shell", "args": {"command": f"sleep {marker} & sleep {marker}"}}])
        while not processes_with(f"sleep\0{marker}"):
            await asyncio.sleep(0.01)
        began = time.perf_counter()
        await lab.cancel(run_id)
        while processes_with(f"sleep\0{marker}"):
            await asyncio.sleep(0.001)
        dead.append(time.perf_counter() - began)
        while await lab.status(run_id) != "cancelled":
            await asyncio.sleep(0.001)
        cancelled.append(time.perf_counter() - began)
    rows = [["all its processes are dead", *milliseconds(dead)], ["its status is cancelled", *milliseconds(cancelled)]]
    title = f"Time from the cancel of a run of `sleep 600`, {RUNS} runs"
    table(title, ["until", "p50 ms", "p99 ms", "max ms"], rows)
