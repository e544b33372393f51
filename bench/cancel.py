"""Time from a cancel until the tool's processes are dead and the run has ended, in the local sandbox and in Jobs.

Targets: p99 ≤ 1 s in the sandbox, ≤ 5 s in Jobs. Cancels of Jobs come at random moments: before the Job exists, while
its pod is pending, starts, runs, or ends. The cluster is the API server of the tests, see `bench/tools.py`.
"""

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.generator import RequestFailed
from bench.lab import Lab, milliseconds, table
from infra.devstack import probes
from infra.devstack import processes as parts
from infra.devstack.supervised_process import SupervisedProcess
from tests.support.kube import Delay, Fail, KubeServer, kube_server
from tests.support.kube.worker_access import tools_image, worker_environment, write_kubeconfig
from tests.support.processes import processes_with

SANDBOX, JOBS, FAULTY, UNOWNED = 50, 120, 60, 25
"""Numbers of cancels."""
AT_ONCE = 3
LATEST_S = 3.0
"""Latest moment of a cancel after the creation of its run. Half of the programs end by themselves before."""
SHORT_S = 1.5
ENDED = {"succeeded", "failed", "cancelled"}


class Programs:
    """Programs that sleep, each for another number of seconds, so that its processes can be found in /proc."""

    def __init__(self) -> None:
        self._count = 0

    def next(self, seconds: float) -> tuple[str, str]:
        """Return a program, and the marker of its processes."""
        self._count += 1
        text = f"{seconds + self._count / 100_000:.5f}"
        return f"sleep {text} & sleep {text}", f"sleep\0{text}"


async def run(lab: Lab) -> None:
    """Measure and print, on a stack without workers."""
    programs = Programs()
    async with _workers(lab, 1, 1, {}):
        sandbox = [await _running(lab, programs) for _ in range(SANDBOX)]
    measured = {"local sandbox, program runs": sandbox}
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with kube_server(folder / "pods", tools_image(folder)) as server:
            write_kubeconfig(folder / "kubeconfig", server.url)
            server.delays.container_s = 0.3
            async with _workers(lab, 2, 2, worker_environment(folder / "kubeconfig")) as workers:
                await _at_random(lab, programs, AT_ONCE)  # warms up
                measured["Job, at random moments"] = await _at_random(lab, programs, JOBS)
                server.faults.add(Delay(0.3), chance=0.5)
                server.faults.add(Fail(500), chance=0.5)
                measured["Job, half of all requests fail"] = await _at_random(lab, programs, FAULTY)
                server.faults.heal()
                measured["Job, its worker was killed"] = [
                    await _running(lab, programs, workers) for _ in range(UNOWNED)
                ]
                await _nothing_left(server)
    base = sorted(sandbox)[len(sandbox) // 2]
    rows = [
        [name, str(len(values)), *milliseconds(values), *_ratios(values, base)] for name, values in measured.items()
    ]
    columns = ["cancelled while", "cancels", "p50 ms", "p99 ms", "max ms", "p50 ×", "p99 ×", "max ×"]
    title = "Time from a cancel until the run has ended and all its processes are dead; × the median of the sandbox"
    table(title, columns, rows)


async def _at_random(lab: Lab, programs: Programs, count: int) -> list[float]:
    """Cancel `count` runs at random moments, some at a time; return the seconds that each took."""
    moments = random.Random(1)
    found: list[float] = []

    async def work() -> None:
        while len(found) < count:
            program, marker = programs.next(moments.choice([SHORT_S, 600.0]))
            run_id = await lab.create([{"tool": "shell", "args": {"command": program}}])
            await asyncio.sleep(moments.uniform(0, LATEST_S))
            try:
                found.append(await _cancelled(lab, run_id, marker))
            except RequestFailed:
                if await lab.status(run_id) not in ENDED:
                    raise

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return found


async def _running(lab: Lab, programs: Programs, workers: Sequence[SupervisedProcess] = ()) -> float:
    """Cancel a run whose program runs, after its worker was killed if `workers` are given."""
    program, marker = programs.next(600.0)
    run_id = await lab.create([{"tool": "shell", "args": {"command": program}}])
    while not processes_with(marker):
        await asyncio.sleep(0.01)
    if not workers:
        return await _cancelled(lab, run_id, marker)
    owner = (await lab.api.get(f"/agent/runs/{run_id}/attempts"))["attempts"][-1]["worker"]
    (killed,) = (worker for worker in workers if worker.spec.environment["WORKER_NAME"] == owner)
    killed.kill()
    seconds = await _cancelled(lab, run_id, marker)
    await killed.stop()
    await killed.start()
    return seconds


async def _cancelled(lab: Lab, run_id: str, marker: str) -> float:
    began = time.perf_counter()
    await lab.cancel(run_id)
    while processes_with(marker):
        await asyncio.sleep(0.005)
    while await lab.status(run_id) not in ENDED:
        await asyncio.sleep(0.005)
    while processes_with(marker):
        await asyncio.sleep(0.005)
    return time.perf_counter() - began


async def _nothing_left(server: KubeServer) -> None:
    """Wait until no Job and no pod is left."""
    while any(server.objects(plural, "agent-tools") for plural in ("jobs", "pods")):
        await asyncio.sleep(0.2)


@asynccontextmanager
async def _workers(
    lab: Lab, first: int, count: int, variables: Mapping[str, str]
) -> AsyncIterator[list[SupervisedProcess]]:
    """Run workers with these variables within the context."""
    workers = []
    for number in range(first, first + count):
        part = parts.worker(lab.stack.config, parts.base_environment(os.environ), number)
        part = replace(part, environment={**part.environment, **variables})
        workers.append(_worker(part, part.folder / f"{part.name}.log"))
    try:
        for worker in workers:
            await worker.start()
        yield workers
    finally:
        for worker in workers:
            await worker.stop()


def _worker(part: parts.ProcessSpec, log: Path) -> SupervisedProcess:
    return SupervisedProcess(part, log, lambda begin: probes.worker_fit(log, begin))


def _ratios(values: Sequence[float], base: float) -> list[str]:
    return [f"{float(text) / 1000 / base:.1f}" for text in milliseconds(values)]
