"""Runs through API and worker: runs a second and Redis commands a run, all logs checked for holes."""

import asyncio
import time

from bench.lab import NOOP, Lab, table, until_all

RUNS = 1000
CLIENTS = 16


async def run(lab: Lab) -> None:
    """Measure and print."""
    before = await lab.commands()
    began = time.perf_counter()
    todo = iter(range(RUNS))
    run_ids: list[str] = []

    async def client() -> None:
        run_ids.extend([await lab.create(NOOP) for _ in todo])

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    submitted_s = time.perf_counter() - began
    while (depths := (await lab.api.get("/agent/queue")).json())["ready"] or depths["running"]:
        await asyncio.sleep(0.05)
    finished_s = time.perf_counter() - began
    spent = await lab.commands() - before
    await until_all(lab, run_ids, "succeeded")
    for run_id in run_ids:
        seqs = [event["seq"] for event in await lab.page(run_id)]
        if seqs != list(range(1, len(seqs) + 1)):
            raise RuntimeError(f"{run_id} has a hole in its log: {seqs}")
    rows = [
        ["runs, all succeeded, logs without a hole", str(RUNS)],
        ["created a second", f"{RUNS / submitted_s:.0f}"],
        ["finished a second, from the first create on", f"{RUNS / finished_s:.0f}"],
        ["Redis commands a run", f"{sum(spent.values()) / RUNS:.1f}"],
        *([f"  {name}", f"{calls / RUNS:.2f}"] for name, calls in spent.most_common(12)),
    ]
    table(f"{RUNS} one-step runs, {CLIENTS} clients, one worker of 4 slots", ["what", "value"], rows)
