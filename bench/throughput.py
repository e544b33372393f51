"""Throughput of API and worker: runs per second and Redis commands per run. All logs are checked for gaps.

aiohttp creates the runs: httpx would need more processor time than all parts that are measured.
"""

import asyncio
import time

import aiohttp

from bench.lab import NOOP, Lab, table, until_all

RUNS = 1000
CLIENTS = 16


async def create_runs(lab: Lab) -> list[str]:
    """Create RUNS runs from CLIENTS clients at once; return their ids."""
    remaining = iter(range(RUNS))
    run_ids: list[str] = []
    headers = {"Authorization": f"Bearer {lab.stack.env['SWISSBRAIN_TOKEN']}"}
    base_url = lab.stack.env["SWISSBRAIN_API_URL"]
    async with aiohttp.ClientSession(headers=headers, raise_for_status=True) as session:

        async def client() -> None:
            for _ in remaining:
                async with session.post(f"{base_url}/agent/runs", json={"plan": NOOP}) as response:
                    run_ids.append((await response.json())["run_id"])

        await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return run_ids


async def run(lab: Lab) -> None:
    """Measure and print."""
    before = await lab.commands()
    began = time.perf_counter()
    run_ids = await create_runs(lab)
    created_s = time.perf_counter() - began
    while (depths := (await lab.api.get("/agent/queue")).json())["ready"] or depths["running"]:
        await asyncio.sleep(0.05)
    finished_s = time.perf_counter() - began
    executed = await lab.commands() - before
    await until_all(lab, run_ids, "succeeded")
    for run_id in run_ids:
        seqs = [event["seq"] for event in await lab.page(run_id)]
        if seqs != list(range(1, len(seqs) + 1)):
            raise RuntimeError(f"{run_id} has a gap in its log: {seqs}")
    rows = [
        ["runs, all succeeded, logs without gaps", str(RUNS)],
        ["runs created per second", f"{RUNS / created_s:.0f}"],
        ["runs finished per second, since the first create", f"{RUNS / finished_s:.0f}"],
        ["Redis commands per run", f"{executed.total() / RUNS:.1f}"],
        *([f"  {name}", f"{calls / RUNS:.2f}"] for name, calls in executed.most_common(12)),
    ]
    table(f"{RUNS} one-step runs, {CLIENTS} clients, one worker with 4 slots", ["measure", "value"], rows)
