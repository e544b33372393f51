"""Redis commands of an idle stack. Target: at most 120 per hour and worker."""

import asyncio

from bench.lab import Lab, table
from worker.queue.loop import MAX_BLOCK_S

SECONDS = 2 * MAX_BLOCK_S
"""A multiple of the longest blocking wait of a worker, so that the commands between waits are counted in proportion."""


async def run(lab: Lab) -> None:
    """Measure and print."""
    workers = sum(name.startswith("worker") for name in lab.stack.pids)
    await asyncio.sleep(20)
    before = await lab.commands()
    await asyncio.sleep(SECONDS)
    executed = await lab.commands() - before
    per_hour = executed.total() * 3600 / SECONDS
    rows = [
        ["Redis commands per hour", f"{per_hour:.0f}"],
        ["Redis commands per hour and worker", f"{per_hour / workers:.0f}"],
        *([f"{name} in {SECONDS:.0f} s", str(count)] for name, count in executed.most_common()),
    ]
    table(f"Idle stack: API, gateway, workers: {workers}, no runs", ["measure", "value"], rows)
