"""Time until the runs of a killed or draining worker continue.

Targets after a `kill -9`: 2 s (p50) where the worker is started again on the same WORKER_ROOT within 0.5 s; elsewhere
at most the lease (15 s) and 1 s.
"""

import asyncio
import os
import signal
import time

from bench.lab import Lab, milliseconds, table
from infra.devstack import probes
from infra.devstack import processes as parts
from infra.devstack.supervised_process import SupervisedProcess

ROUNDS = 13
RESTART_S = 0.5
RUNS = 4
"""Runs of each round, equal to the slots of a worker."""
SLEEPING: list[dict[str, object]] = [{"tool": "shell", "args": {"command": "sleep 600", "timeout_s": 900}}]
STEPPING: list[dict[str, object]] = [{"tool": "shell", "args": {"command": "sleep 0.2"}}] * 200


async def run(lab: Lab) -> None:
    """Measure and print, on a stack without workers."""
    resumed = await _rounds(lab, signal.SIGKILL, SLEEPING, "run.resumed")
    restarted = await _restarts(lab)
    requeued = await _rounds(lab, signal.SIGTERM, STEPPING, "run.requeued")
    rows = [
        [f"kill -9: another worker resumes the run ({len(resumed)} runs)", *milliseconds(resumed)],
        [
            f"kill -9: the worker, started again after 0.5 s, resumes the run ({len(restarted)} runs)",
            *milliseconds(restarted),
        ],
        [f"SIGTERM: the worker requeues the run after a step of 0.2 s ({len(requeued)} runs)", *milliseconds(requeued)],
    ]
    title = "A worker with 4 slots and a lease of 15 s, with a second worker idle"
    table(title, ["from the signal until", "p50 ms", "p99 ms", "max ms"], rows)


async def _rounds(lab: Lab, number: signal.Signals, plan: list[dict[str, object]], event_type: str) -> list[float]:
    """Return the seconds from the signal to the first event of that type, for each run of each signalled worker."""
    delays: list[float] = []
    worker = await _worker(lab, 0)
    for count in range(1, ROUNDS + 1):
        runs = [await lab.create(plan) for _ in range(RUNS)]
        await asyncio.gather(*(_event_ms(lab, run_id, "tool.started") for run_id in runs))
        signalled, worker = worker, await _worker(lab, count)
        sent_s = time.time()
        os.kill(signalled.pid or 0, number)
        times_ms = await asyncio.gather(*(_event_ms(lab, run_id, event_type) for run_id in runs))
        delays += [ms / 1000 - sent_s for ms in times_ms]
        for run_id in runs:
            (await lab.api.post(f"/agent/runs/{run_id}/cancel")).raise_for_status()
        await asyncio.gather(*(_event_ms(lab, run_id, "run.finished") for run_id in runs))
        await signalled.stop()
    await worker.stop()
    return delays


async def _restarts(lab: Lab) -> list[float]:
    """Return the seconds from `kill -9` to `run.resumed`, for each run of a worker that a supervisor starts again."""
    delays: list[float] = []
    worker = await _worker(lab, 0)
    for _ in range(ROUNDS):
        runs = [await lab.create(SLEEPING) for _ in range(RUNS)]
        await asyncio.gather(*(_event_ms(lab, run_id, "tool.started") for run_id in runs))
        sent_s = time.time()
        os.kill(worker.pid or 0, signal.SIGKILL)
        await worker.stop()
        await asyncio.sleep(RESTART_S)
        await worker.start()
        times_ms = await asyncio.gather(*(_event_ms(lab, run_id, "run.resumed") for run_id in runs))
        delays += [ms / 1000 - sent_s for ms in times_ms]
        for run_id in runs:
            (await lab.api.post(f"/agent/runs/{run_id}/cancel")).raise_for_status()
        await asyncio.gather(*(_event_ms(lab, run_id, "run.finished") for run_id in runs))
    await worker.stop()
    return delays


async def _worker(lab: Lab, number: int) -> SupervisedProcess:
    """Start one more worker; return when it is ready."""
    part = parts.worker(lab.stack.config, parts.base_environment(os.environ), number)
    log = part.folder / f"{part.name}.log"
    worker = SupervisedProcess(part, log, lambda begin: probes.worker_fit(log, begin))
    await worker.start()
    return worker


async def _event_ms(lab: Lab, run_id: str, event_type: str) -> int:
    """Wait for the first event of the type; return its time in ms since the epoch."""
    async for event in lab.events(run_id):
        if event["type"] == event_type:
            return int(event["ts"])
    raise RuntimeError(f"{run_id} ended without an event {event_type}")
