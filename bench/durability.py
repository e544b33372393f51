"""A worker is lost, or drains: how soon its runs go on. Target: within the lease (15 s) and 1 s after a `kill -9`."""

import asyncio
import os
import signal
import time

from bench.lab import Lab, milliseconds, table
from infra.devstack import probes
from infra.devstack import processes as parts
from infra.devstack.supervised_process import SupervisedProcess

ROUNDS = 13
RUNS = 4
"""As many as a worker has slots."""
SLEEPING: list[dict[str, object]] = [{"tool": "shell", "args": {"command": "sleep 600", "timeout_s": 900}}]
STEPPING: list[dict[str, object]] = [{"tool": "shell", "args": {"command": "sleep 0.2"}}] * 200


async def run(lab: Lab) -> None:
    """Measure and print, on a stack without workers."""
    resumed = await _rounds(lab, signal.SIGKILL, SLEEPING, "run.resumed")
    given_back = await _rounds(lab, signal.SIGTERM, STEPPING, "run.requeued")
    rows = [
        [f"kill -9: its run goes on (of {len(resumed)})", *milliseconds(resumed)],
        [f"SIGTERM: its run is given back at a step of 0.2 s (of {len(given_back)})", *milliseconds(given_back)],
    ]
    title = "A worker of 4 slots with a lease of 15 s; another one stands by"
    table(title, ["from the signal until", "p50 ms", "p99 ms", "max ms"], rows)


async def _rounds(lab: Lab, number: signal.Signals, plan: list[dict[str, object]], wanted: str) -> list[float]:
    """Seconds from the signal to the event in the log of each of the worker's runs; the next worker takes over."""
    delays: list[float] = []
    worker = await _worker(lab, 0)
    for count in range(1, ROUNDS + 1):
        runs = [await lab.create(plan) for _ in range(RUNS)]
        await asyncio.gather(*(_seen(lab, run_id, "tool.started") for run_id in runs))
        former, worker = worker, await _worker(lab, count)
        sent = time.time()
        os.kill(former.pid or 0, number)
        at_ms = await asyncio.gather(*(_seen(lab, run_id, wanted) for run_id in runs))
        delays += [ms / 1000 - sent for ms in at_ms]
        for run_id in runs:
            (await lab.api.post(f"/agent/runs/{run_id}/cancel")).raise_for_status()
        await asyncio.gather(*(_seen(lab, run_id, "run.finished") for run_id in runs))
        await former.stop()
    await worker.stop()
    return delays


async def _worker(lab: Lab, number: int) -> SupervisedProcess:
    """One more worker, ready."""
    part = parts.worker(lab.stack.config, parts.base_environment(os.environ), number)
    log = part.folder / f"{part.name}.log"
    worker = SupervisedProcess(part, log, lambda begin: probes.log_contains(log, begin, '"action":"worker.started"'))
    await worker.start()
    return worker


async def _seen(lab: Lab, run_id: str, wanted: str) -> int:
    """When the first event of the type was logged, in ms since the epoch."""
    async for event in lab.events(run_id):
        if event["type"] == wanted:
            return int(event["ts"])
    raise RuntimeError(f"{run_id} ended without {wanted}")
