"""Throughput of API and worker: runs per second and Redis commands per run. All logs are checked for gaps."""

import asyncio
import time

from bench.lab import NOOP, Lab, table, until_all

RUNS = 1000
CLIENTS = 16


async def create_runs(lab: Lab) -> list[str]:
    """Create RUNS runs from CLIENTS clients at once; return their ids."""
    remaining = iter(range(RUNS))

    async def client() -> list[str]:
        return [await lab.create(NOOP) for _ in remaining]

    return [run_id for created in await asyncio.gather(*(client() for _ in range(CLIENTS))) for run_id in created]


async def run(lab: Lab) -> None:
    """Measure and print."""
    before, processors = await lab.commands(), lab.processor_time()
    began = time.perf_counter()
    run_ids = await create_runs(lab)
    created_s = time.perf_counter() - began
    while (depths := await lab.api.get("/agent/queue"))["ready"] or depths["running"]:
        await asyncio.sleep(0.05)
    finished_s = time.perf_counter() - began
    executed, used = await lab.commands() - before, processors.row()
    await until_all(lab, run_ids, "succeeded")
    for run_id in run_ids:
        seqs = [event["seq"] for event in await lab.page(run_id)]
        if seqs != list(range(1, len(seqs) + 1)):
            raise RuntimeError(f"{run_id} has a gap in its log: {seqs}")
    rows = [
        ["runs, all succeeded, logs without gaps", str(RUNS)],
        ["runs created per second", f"{RUNS / created_s:.0f}"],
        ["runs finished per second, since the first create", f"{RUNS / finished_s:.0f}"],
        used,
        ["Redis commands per run", f"{executed.total() / RUNS:.1f}"],
        *([f"  {name}", f"{calls / RUNS:.2f}"] for name, calls in executed.most_common(12)),
    ]
    table(f"{RUNS} one-step runs, {CLIENTS} clients, one worker with 4 slots", ["measure", "value"], rows)
