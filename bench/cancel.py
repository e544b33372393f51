"""Time from a cancel until the tool's processes are dead and the run is cancelled. Target: p99 ≤ 1 s."""

import asyncio
import time
from pathlib import Path

from bench.lab import Lab, milliseconds, table

RUNS = 50


def process_exists(marker: str) -> bool:
    """Return whether a process of this machine has the marker in its command line."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if marker.encode() in path.read_bytes():
                return True
        except OSError:  # the process ended meanwhile
            continue
    return False


async def run(lab: Lab) -> None:
    """Measure and print."""
    dead, cancelled = [], []
    for number in range(RUNS):
        # Each run sleeps for another number of seconds, so that its processes can be distinguished in /proc.
        marker = f"600.{number + 1:04}"
        run_id = await lab.create([{"tool": "shell", "args": {"command": f"sleep {marker} & sleep {marker}"}}])
        while not process_exists(f"sleep\0{marker}"):
            await asyncio.sleep(0.01)
        began = time.perf_counter()
        (await lab.api.post(f"/agent/runs/{run_id}/cancel")).raise_for_status()
        while process_exists(f"sleep\0{marker}"):
            await asyncio.sleep(0.001)
        dead.append(time.perf_counter() - began)
        while await lab.status(run_id) != "cancelled":
            await asyncio.sleep(0.001)
        cancelled.append(time.perf_counter() - began)
    rows = [["all its processes are dead", *milliseconds(dead)], ["its status is cancelled", *milliseconds(cancelled)]]
    title = f"Time from the cancel of a run of `sleep 600`, {RUNS} runs"
    table(title, ["until", "p50 ms", "p99 ms", "max ms"], rows)
