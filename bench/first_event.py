"""Time from the creation of a run to the first log event on its stream, on an idle stack. Target: p50 ≤ 10 ms.

aiohttp is the client: httpx would need more time than the parts that are measured.
"""

import asyncio
import time

import aiohttp

from bench.lab import NOOP, Lab, milliseconds, table

RUNS = 200
PAUSE_S = 0.02


async def run(lab: Lab) -> None:
    """Measure and print."""
    created, first, finished = [], [], []
    headers = {"Authorization": f"Bearer {lab.stack.env['SWISSBRAIN_TOKEN']}"}
    base_url = lab.stack.env["SWISSBRAIN_API_URL"]
    async with aiohttp.ClientSession(headers=headers, raise_for_status=True) as session:
        for _ in range(RUNS):
            began = time.perf_counter()
            async with session.post(f"{base_url}/agent/runs", json={"plan": NOOP}) as response:
                run_id = (await response.json())["run_id"]
            created.append(time.perf_counter() - began)
            arrivals = []
            async with session.get(f"{base_url}/agent/logs/{run_id}/stream") as response:
                async for line in response.content:
                    if line.startswith(b"data: "):
                        arrivals.append(time.perf_counter() - began)
                    if line.startswith(b"event: end"):
                        break
            first.append(arrivals[0])
            finished.append(time.perf_counter() - began)
            await asyncio.sleep(PAUSE_S)
    rows = [
        ["the run is acknowledged", *milliseconds(created)],
        ["the first event arrives on its stream", *milliseconds(first)],
        ["its stream ends", *milliseconds(finished)],
    ]
    title = f"Time from the create request of a one-step run, {RUNS} runs, idle stack"
    table(title, ["until", "p50 ms", "p99 ms", "max ms"], rows)
