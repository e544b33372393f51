"""Shared parts of the benchmarks: stack, client, command counts of Redis, statistics, tables."""

import asyncio
import json
import statistics
import sys
import sysconfig
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from contextlib import aclosing, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis import asyncio as redis
from rich.console import Console
from rich.table import Table

from bench.generator import Generator
from bench.processor_time import ProcessorTime
from infra.devstack.stack import DevStack
from tests.support.command_counts import UNBILLED

FILE_WIDTH = 120
"""Characters of a table row when stdout is not a terminal."""
NOOP = [{"tool": "message", "args": {"text": "noop"}}]


@dataclass(frozen=True)
class Lab:
    """Running stack, a client of its API, and a connection to its Redis."""

    api: Generator
    redis: "redis.Redis"
    stack: DevStack

    async def create(self, plan: Sequence[dict[str, Any]]) -> str:
        """Create and start a run; return its id."""
        run_id: str = (await self.api.post("/agent/runs", {"plan": plan}))["run_id"]
        return run_id

    async def events(self, run_id: str) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the run's events live, until its stream ends."""
        async with aclosing(self.api.lines(f"/agent/logs/{run_id}/stream")) as lines:
            async for line in lines:
                if line == b"event: end":
                    return
                if line.startswith(b"data: "):
                    yield json.loads(line.removeprefix(b"data: "))

    async def page(self, run_id: str) -> list[dict[str, Any]]:
        """Return the run's whole log, read in pages."""
        events: list[dict[str, Any]] = []
        while True:
            after = events[-1]["seq"] if events else 0
            body = await self.api.get(f"/agent/logs/{run_id}?after={after}&limit=1000")
            events += body["events"]
            if not body["events"]:
                return events

    async def status(self, run_id: str) -> str:
        """Return the run's status."""
        status: str = (await self.api.get(f"/agent/runs/{run_id}"))["status"]
        return status

    async def cancel(self, run_id: str) -> None:
        """Ask for the end of a run."""
        await self.api.post(f"/agent/runs/{run_id}/cancel")

    def processor_time(self) -> ProcessorTime:
        """Begin to count the processor time of this process and of the stack."""

        def pids() -> Collection[int]:
            return self.stack.pids.values()

        return ProcessorTime(pids)

    async def commands(self) -> Counter[str]:
        """Count the executions of each billed command since the start of Redis, inside scripts too."""
        return await billed_commands(self.redis)


async def billed_commands(client: "redis.Redis") -> Counter[str]:
    """Count the executions of each command that Upstash would bill since the start of Redis, inside scripts too."""
    stats = await client.info("commandstats")
    names = {name.removeprefix("cmdstat_"): row["calls"] for name, row in stats.items()}
    return Counter({name: calls for name, calls in names.items() if name.split("|")[0] not in UNBILLED})


@asynccontextmanager
async def lab(*, workers: int = 1) -> AsyncIterator[Lab]:
    """Start a fresh stack in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        async with (
            DevStack(Path(folder) / "data", workers=workers) as stack,
            redis.Redis.from_url(stack.env["REDIS_URL"], decode_responses=True) as client,
        ):
            with closing(Generator(stack.env["SWISSBRAIN_API_URL"], stack.env["SWISSBRAIN_TOKEN"])) as api:
                await Lab(api, client, stack).create(NOOP)  # warms up API and worker
                yield Lab(api, client, stack)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` of the values lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def milliseconds(values_s: Sequence[float]) -> list[str]:
    """Return median, 99th percentile and maximum of values in seconds, formatted in ms."""
    return [f"{1000 * value:.1f}" for value in (statistics.median(values_s), percentile(values_s, 0.99), max(values_s))]


def interpreter() -> str:
    """Return the version of this interpreter and whether it was configured for speed, which changes every figure."""
    # Debian builds with profiles too, but without this option.
    is_configured = "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
    return f"Python {sys.version}, configured {'with' if is_configured else 'without'} --enable-optimizations"


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table, with the interpreter below it."""
    printed = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        printed.add_column(column, justify="left" if number == 0 else "right")
    for row in rows:
        printed.add_row(*row)
    Console(width=None if sys.stdout.isatty() else FILE_WIDTH).print(printed)
    print(interpreter())


async def until_all(lab_: Lab, run_ids: Sequence[str], status: str) -> None:
    """Wait until every run has that status. Raises RuntimeError if a run ends with another status."""
    for run_id in run_ids:
        while (found := await lab_.status(run_id)) != status:
            if found in {"failed", "cancelled", "succeeded"}:
                raise RuntimeError(f"{run_id} has status {found} instead of {status}")
            await asyncio.sleep(0.01)
