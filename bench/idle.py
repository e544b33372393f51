"""What an idle stack costs. Target: at most 120 Redis commands an hour for each worker."""

import asyncio

from bench.lab import Lab, table
from worker.queue.loop import MAX_BLOCK_S

SECONDS = 2 * MAX_BLOCK_S
"""A whole number of a worker's longest sleeps, so that their share of looks at the queue is in it."""


async def run(lab: Lab) -> None:
    """Measure and print."""
    workers = sum(name.startswith("worker") for name in lab.stack.pids)
    await asyncio.sleep(20)
    before = await lab.commands()
    await asyncio.sleep(SECONDS)
    spent = await lab.commands() - before
    hourly = spent.total() * 3600 / SECONDS
    rows = [
        ["Redis commands in an hour", f"{hourly:.0f}"],
        ["  for each worker", f"{hourly / workers:.0f}"],
        *([f"{name} in {SECONDS:.0f} s", str(count)] for name, count in spent.most_common()),
    ]
    table(f"An idle stack: API, gateway, workers: {workers}, nothing to do", ["what", "value"], rows)
