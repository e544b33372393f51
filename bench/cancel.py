"""Cancel → the tool's process is dead and the run cancelled. Target: p99 ≤ 1 s."""

import asyncio
import time
from pathlib import Path

from bench.lab import Lab, milliseconds, table

TRIES = 50


def alive(marker: str) -> bool:
    """Whether a process of this machine has the marker in its command line."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if marker.encode() in path.read_bytes():
                return True
        except OSError:
            continue
    return False


async def run(lab: Lab) -> None:
    """Measure and print."""
    dead, cancelled = [], []
    for number in range(TRIES):
        marker = f"600.{number + 1:04}"
        run_id = await lab.create([{"tool": "shell", "args": {"command": f"sleep {marker} & sleep {marker}"}}])
        while not alive(f"sleep\0{marker}"):
            await asyncio.sleep(0.01)
        began = time.perf_counter()
        (await lab.api.post(f"/agent/runs/{run_id}/cancel")).raise_for_status()
        while alive(f"sleep\0{marker}"):
            await asyncio.sleep(0.001)
        dead.append(time.perf_counter() - began)
        while await lab.status(run_id) != "cancelled":
            await asyncio.sleep(0.001)
        cancelled.append(time.perf_counter() - began)
    rows = [["the process tree is dead", *milliseconds(dead)], ["the run is cancelled", *milliseconds(cancelled)]]
    table(f"From the call of cancel, {TRIES} runs of `sleep 600`", ["until", "p50 ms", "p99 ms", "max ms"], rows)
