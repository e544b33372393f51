"""Comparison with BullMQ and Restate, which node runs: all systems are up at the same time, and measured in turns.

`python -m bench.peer_comparison SECONDS` counts the commands of idle stores for another time.
"""

import asyncio
import statistics
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import npm
from bench.lab import percentile, table
from bench.peer_systems import BullMQ, Restate, SwissBrain, System
from bench.processor_time import ProcessorTime, share

ROUNDS = 3
RUNS = 600
"""Runs of each round."""
CLIENTS = 10
FIRST_EVENTS = 50
PAUSE_S = 0.02
KILLS = 3
SLEEP_S = 600
TIMEOUT_S = 120.0
LOG_CHARS = 2000
SETTLE_S = 20
IDLE_S = 480
"""Twice the longest blocking wait of our worker."""
NONE = "–"


@dataclass
class Figures:
    """Measurements of one system; times in s. An empty list, or None: it has no such thing."""

    runs_per_s: list[float] = field(default_factory=list)
    first_event_s: list[float] = field(default_factory=list)
    resumed_s: list[float] = field(default_factory=list)
    idle_commands_per_hour: float | None = None
    generator_s: float = 0
    system_s: float = 0

    def cells(self, ours: "Figures") -> list[str]:
        """Return the row of the table, with each figure also divided by ours."""
        runs, first = statistics.median(self.runs_per_s), _median(self.first_event_s)
        tail = f" / {1000 * percentile(self.first_event_s, 0.99):.0f}" if first else ""
        return [
            _cell(runs, statistics.median(ours.runs_per_s)),
            _cell(first, _median(ours.first_event_s), 1000) + tail,
            _cell(_median(self.resumed_s), _median(ours.resumed_s), digits=1),
            _cell(self.idle_commands_per_hour, ours.idle_commands_per_hour),
            f"{1000 * self.system_s / (ROUNDS * RUNS):.2f}",
            share(self.generator_s, self.system_s),
        ]


async def run() -> None:
    """Measure and print. Raises Unavailable without node and npm."""
    await measure(IDLE_S)


async def measure(idle_s: float) -> None:
    """Measure and print."""
    await npm.install()
    async with AsyncExitStack() as stack:
        systems: list[System] = []
        for kind in (SwissBrain, BullMQ, Restate):
            systems.append(kind(Path(stack.enter_context(TemporaryDirectory()))))
            await systems[-1].start(stack)
        found = {system.name: Figures() for system in systems}
        for _ in range(ROUNDS):
            for system in systems:
                await _throughput(system, found[system.name])
        for system in systems:
            await _first_events(system, found[system.name])
        for _ in range(KILLS):
            await asyncio.gather(*(_kill(system, found[system.name]) for system in systems))
        await asyncio.sleep(min(SETTLE_S, idle_s))
        before = [await system.commands() for system in systems]
        await asyncio.sleep(idle_s)
        for system, count in zip(systems, before, strict=True):
            if count is not None:
                executed = (await system.commands() or 0) - count
                found[system.name].idle_commands_per_hour = executed * 3600 / idle_s
    _print(found, idle_s)


async def _throughput(system: System, figures: Figures) -> None:
    """Create RUNS runs from CLIENTS clients; add the runs per second until the last has ended."""
    remaining, before = iter(range(RUNS)), system.ended()

    async def client() -> None:
        for _ in remaining:
            await system.create()

    processors, began = ProcessorTime(system.pids), time.perf_counter()
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await asyncio.gather(*(client() for _ in range(CLIENTS)))
            while system.ended() < before + RUNS:
                await asyncio.sleep(PAUSE_S)
    except TimeoutError:
        raise RuntimeError(
            f"{system.name} ended {system.ended() - before} of {RUNS} runs in {TIMEOUT_S:g} s; its worker logged:\n"
            f"{system.worker_log()[-LOG_CHARS:]}"
        ) from None
    figures.runs_per_s.append(RUNS / (time.perf_counter() - began))
    generator_s, system_s = processors.read()
    figures.generator_s += generator_s
    figures.system_s += system_s
    print(f"{system.name}: {figures.runs_per_s[-1]:.0f} runs/s", flush=True)


async def _first_events(system: System, figures: Figures) -> None:
    """Add the times from the creation of a run to its first event at the client, if the system has events."""
    if not await system.prepare_events():
        return
    async with asyncio.timeout(TIMEOUT_S):
        for _ in range(FIRST_EVENTS):
            began = time.perf_counter()
            await system.first_event(await system.create())
            figures.first_event_s.append(time.perf_counter() - began)
            await asyncio.sleep(PAUSE_S)


async def _kill(system: System, figures: Figures) -> None:
    """Kill the worker in the middle of a run's step; add the time until the step is executed again."""
    run_id = await system.create(SLEEP_S)
    await system.started(run_id)
    killed_s = await system.crash()
    figures.resumed_s.append(await system.resumed_s(run_id) - killed_s)
    print(f"{system.name}: killed, resumed after {figures.resumed_s[-1]:.1f} s", flush=True)


def _print(found: dict[str, Figures], idle_s: float) -> None:
    ours, versions = found[SwissBrain.name], npm.versions()
    names = {BullMQ.name: f"BullMQ {versions['bullmq']}"}
    names[Restate.name] = f"Restate {versions['@restatedev/restate-server']}"
    columns = [
        "1-step runs/s",
        "create → first event, p50 / p99 ms",
        "kill -9 → resumed, s",
        "store commands/idle hour",
    ]
    title = f"{ROUNDS} rounds of {RUNS} runs, {CLIENTS} clients; {KILLS} kills; {idle_s:.0f} s idle. ×: divided by ours"
    rows = [[names.get(name, name), *figures.cells(ours)] for name, figures in found.items()]
    table(title, ["system", *columns, "CPU ms/run", "generator's CPU : system's"], rows)


def _median(values: list[float]) -> float | None:
    return statistics.median(values) if values else None


def _cell(value: float | None, ours: float | None, scale: float = 1, digits: int = 0) -> str:
    if value is None:
        return NONE
    ratio = f" (×{value / ours:.2f})" if ours else ""
    return f"{scale * value:,.{digits}f}{ratio}"


if __name__ == "__main__":
    asyncio.run(measure(float(sys.argv[1])))
