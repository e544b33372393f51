"""What an idle stack costs. Target: at most 120 Redis commands an hour for each worker."""

import asyncio

from bench.lab import Lab, table

SECONDS = 60


async def run(lab: Lab) -> None:
    """Measure and print."""
    await asyncio.sleep(20)
    before = await lab.commands()
    await asyncio.sleep(SECONDS)
    spent = await lab.commands() - before
    rows = [
        [f"Redis commands in {SECONDS} s", str(sum(spent.values()))],
        *([f"  {n}", str(c)] for n, c in spent.items()),
    ]
    table("An idle stack: API, gateway, one worker, nothing to do", ["what", "value"], rows)
