"""Time and processor time of a trivial `shell` in the local sandbox, and as a Job of the test cluster, side by side.

The cluster is the API server of the tests (tests/support/kube): its scheduler and its controllers take no time, and its
containers are started by bubblewrap. So the figures of the Job are the cost of our side, not that of a cluster.
"""

import asyncio
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.lab import Lab, milliseconds, table
from bench.processor_time import ProcessorTime
from infra.devstack import probes
from infra.devstack import processes as parts
from infra.devstack.supervised_process import SupervisedProcess
from tests.support.kube import kube_server
from tests.support.kube.worker_access import tools_image, worker_environment, write_kubeconfig

CALLS = 100
WARM_UP = 5
COMMAND = "date +%s%N"


@dataclass
class Samples:
    """Seconds from the start of the call to the start of the program, and to the end of the call."""

    started_s: list[float] = field(default_factory=list)
    total_s: list[float] = field(default_factory=list)
    worker_s: float = 0.0


async def run(lab: Lab) -> None:
    """Measure and print, on a stack without workers."""
    local = await _measure(lab, 1, {})
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with kube_server(folder / "pods", tools_image(folder)) as server:
            write_kubeconfig(folder / "kubeconfig", server.url)
            job = await _measure(lab, 2, worker_environment(folder / "kubeconfig"))
    rows = []
    for name, samples in (("local sandbox", local), ("Job in the test cluster", job)):
        cpu = f"{1000 * samples.worker_s / CALLS:.1f}"
        rows += [
            [f"{name}: until the program runs", *milliseconds(samples.started_s), ""],
            [f"{name}: until its result is journaled", *milliseconds(samples.total_s), cpu],
        ]
    title = f"A shell that prints the time, {CALLS} calls one after another, each in a run of its own"
    table(title, ["from the start of the call", "p50 ms", "p99 ms", "max ms", "CPU ms of the worker per call"], rows)


async def _measure(lab: Lab, number: int, variables: dict[str, str]) -> Samples:
    """Measure one worker. The processor time of the local sandbox includes its programs; that of Jobs does not."""
    part = parts.worker(lab.stack.config, parts.base_environment(os.environ), number)
    part = replace(part, environment={**part.environment, **variables})
    log = part.folder / f"{part.name}.log"
    worker = SupervisedProcess(part, log, lambda begin: probes.worker_fit(log, begin))
    await worker.start()
    try:
        for _ in range(WARM_UP):
            await _call(lab, Samples())
        used, samples = ProcessorTime(lambda: [worker.pid or 0]), Samples()
        for _ in range(CALLS):
            await _call(lab, samples)
        samples.worker_s = used.read()[1]
    finally:
        await worker.stop()
    return samples


async def _call(lab: Lab, samples: Samples) -> None:
    run_id = await lab.create([{"tool": "shell", "args": {"command": COMMAND}}])
    while await lab.status(run_id) not in {"succeeded", "failed"}:
        await asyncio.sleep(0.01)
    times, printed = {}, 0.0
    for event in await lab.page(run_id):
        times[event["type"]] = event["ts"] / 1000
        if event["type"] == "tool.output":
            printed = int(event["data"]["text"]) / 1e9
    samples.started_s.append(printed - times["tool.started"])
    samples.total_s.append(times["tool.finished"] - times["tool.started"])
