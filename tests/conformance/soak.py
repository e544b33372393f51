"""`python -m tests.conformance.soak [--events N] [--seed S]`: long logs, read in several ways under random faults.

Prints a table; exit code 1 if a reader lost, doubled or reordered anything, or saw anything else than is kept.
"""

import argparse
import asyncio
import hashlib
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from infra.workspace import Workspaces
from swissbrain.client import Client
from swissbrain.models import Event, Gap, Run
from tests.chaos import faults as chaos
from tests.chaos.faults import Faults
from tests.chaos.load import persistent
from tests.conformance.stack import Stack, whole_stack
from tests.support.run_store import RunStore

LINES = 10_000
"""Of one step; a step that is interrupted prints them again."""
RUN_EVENTS = 100_000
PAUSE_S = (0.5, 2.0)
"""Between two faults."""
TICK_S = 0.05
POLL_S = 0.2
PATIENCE_S = 3600.0

_encoder = msgspec.json.Encoder(order="sorted")


@dataclass
class Reading:
    """What one reader has seen, in constant memory: a digest of all of it, and what was wrong with its numbers."""

    name: str
    count: int = 0
    last: int = 0
    lost: int = 0
    doubled: int = 0
    reordered: int = 0
    digest: Any = field(default_factory=hashlib.sha256)

    def take(self, items: Iterable[Event | Gap]) -> "Reading":
        """Read to the end."""
        for item in items:
            if isinstance(item, Gap):
                self.lost += item.last - item.first + 1
                self.last = item.last
                continue
            self.count += 1
            self.doubled += item.seq == self.last
            self.reordered += item.seq < self.last
            self.lost += max(0, item.seq - self.last - 1)
            self.last = item.seq
            data = [item.seq, item.ts, item.type, item.step, item.data]
            self.digest.update(_encoder.encode(data))
        return self

    def is_like(self, other: "Reading") -> bool:
        """Whether both have seen the same, without a hole."""
        faults = self.lost + self.doubled + self.reordered
        return not faults and self.digest.digest() == other.digest.digest()


def main() -> int:
    """Exit code 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.soak")
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--seed", default=str(time.time_ns() % 1_000_000))
    options = parser.parse_args()
    console = Console()
    console.print(f"seed {options.seed}")
    chaos.PAUSE_S = PAUSE_S
    began, total, broken = time.monotonic(), Counter[str](), False
    table = Table("run", "reader", "events", "lost", "doubled", "reordered", "as kept")
    with tempfile.TemporaryDirectory() as folder, whole_stack(Path(folder)) as stack:
        for name in ("a", "b", "c"):
            stack.place.worker(name)
        for number in range(1, 1 + max(1, options.events // RUN_EVENTS)):
            readings, faults = soak(stack, f"{options.seed}/{number}")
            for reading in readings:
                alike = reading.is_like(readings[-1])
                broken |= not alike
                row = (reading.count, reading.lost, reading.doubled, reading.reordered)
                table.add_row(str(number), reading.name, *map(str, row), "yes" if alike else "NO")
            for complaint in faults.complaints:
                console.print(f"broken: {complaint}", markup=False)
            broken |= bool(faults.complaints)
            total += faults.count
            console.print(f"run {number}: {readings[-1].count:,} events, {time.monotonic() - began:.0f} s")
    console.print(table)
    for name, times in sorted(total.items()):
        console.print(f"{times:4} {name}")
    console.print(f"{total.total()} faults in {time.monotonic() - began:.0f} s")
    return 1 if broken else 0


def soak(stack: Stack, seed: str) -> tuple[list[Reading], Faults]:
    """What all readers have seen of one run, the last of them past the product; and the faults."""
    run_id = stack.create(*[f"seq {LINES}"] * (RUN_EVENTS // LINES))
    faults = Faults(stack.place, seed)
    with ThreadPoolExecutor(3) as threads, _client(stack, stack.url) as client:
        # Whoever asks may have to wait until a fault is over, so it is not who ends the faults.
        ended = threads.submit(_wait, client, run_id)
        live = [
            threads.submit(_follow, stack, run_id, "client, stream", stack.url),
            threads.submit(_follow, stack, run_id, "client, long poll", stack.longpoll_url),
        ]
        while not ended.done():
            faults.tick(inject=True)
            time.sleep(TICK_S)
        faults.end()
        stack.place.heal()
        while not all(future.done() for future in live):
            faults.tick(inject=False)
            time.sleep(TICK_S)
        readings = [future.result() for future in live]
        readings.append(Reading("client, pages").take(client.logged(run_id)))
        if (status := ended.result().status) != "succeeded":
            faults.complaints.append(f"the run has {status}")
    return [*readings, asyncio.run(_kept(stack, run_id))], faults


def _wait(client: Client, run_id: str) -> Run:
    while not (run := persistent(lambda: client.get_run(run_id))).ended:
        time.sleep(POLL_S)
    return run


def _follow(stack: Stack, run_id: str, name: str, url: str) -> Reading:
    with _client(stack, url) as client:
        return Reading(name).take(client.events(run_id))


def _client(stack: Stack, url: str) -> Client:
    return Client(url, stack.token, patience_s=PATIENCE_S)


async def _kept(stack: Stack, run_id: str) -> Reading:
    """What Redis and the object store hold."""
    redis, workspaces = stack.place.redis(), Workspaces(stack.place.stack.config.s3)
    store, reading = RunStore(redis), Reading("Redis and S3")
    try:
        log = await store.log(run_id)
        for segment in log.segments:
            async for events in workspaces.logs.read(log, segment, after=0):
                reading.take(events)
        more = True
        while more:
            found, more = await store.read(run_id, after=reading.last)
            reading.take(found)
    finally:
        await redis.close()
        workspaces.close()
    return reading


if __name__ == "__main__":
    sys.exit(main())
