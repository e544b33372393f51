"""`python -m tests.conformance.soak [--events N] [--seed S]`: read long logs in several ways during random faults.

Prints a table. Exit code 1 if a reader missed, repeated or reordered an event, or read another log than is stored.
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

from infra.contract.log import Event as StoredEvent
from infra.workspace import Workspaces
from swissbrain import Client
from swissbrain.models import Event, Gap, Run
from tests.chaos import faults as chaos
from tests.chaos.faults import Faults
from tests.chaos.load import persistent
from tests.conformance.stack import Stack, whole_stack
from tests.support.run_store import RunStore

LINES = 10_000
"""Lines of one step. An interrupted step prints all of them again."""
RUN_EVENTS = 100_000
FAULT_PAUSE_S = (0.5, 2.0)
"""Minimum and maximum time between two faults."""
TICK_S = 0.05
POLL_S = 0.2
PATIENCE_S = 3600.0

_encoder = msgspec.json.Encoder(order="sorted")


@dataclass
class LogDigest:
    """Digest of the events that one reader has read, in constant memory, and the errors in their sequence numbers."""

    name: str
    count: int = 0
    last: int = 0
    missing: int = 0
    repeated: int = 0
    reordered: int = 0
    digest: Any = field(default_factory=hashlib.sha256)

    def add(self, items: Iterable[Event | StoredEvent | Gap]) -> "LogDigest":
        """Add all items; return the digest itself."""
        for item in items:
            if isinstance(item, Gap):
                self.missing += item.last - item.first + 1
                self.last = item.last
                continue
            self.count += 1
            self.repeated += item.seq == self.last
            self.reordered += item.seq < self.last
            self.missing += max(0, item.seq - self.last - 1)
            self.last = item.seq
            data = [item.seq, item.ts, item.type, item.step, item.data]
            self.digest.update(_encoder.encode(data))
        return self

    def equals(self, other: "LogDigest") -> bool:
        """Return whether both have the same events, and this one each event once and in order."""
        errors = self.missing + self.repeated + self.reordered
        return not errors and self.digest.digest() == other.digest.digest()


def main() -> int:
    """Read logs of `--events` events in total, and print the table. Exit code 1 if a log was not read correctly."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.soak")
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--seed", default=str(time.time_ns() % 1_000_000))
    options = parser.parse_args()
    console = Console()
    console.print(f"seed {options.seed}")
    chaos.PAUSE_S = FAULT_PAUSE_S
    began, total, failed = time.monotonic(), Counter[str](), False
    table = Table("run", "reader", "events", "missing", "repeated", "reordered", "equals stored log")
    with tempfile.TemporaryDirectory() as folder, whole_stack(Path(folder)) as stack:
        for name in ("a", "b", "c"):
            stack.site.worker(name)
        for number in range(1, 1 + max(1, options.events // RUN_EVENTS)):
            digests, faults = read_one_run(stack, f"{options.seed}/{number}")
            for digest in digests:
                equal = digest.equals(digests[-1])
                failed |= not equal
                row = (digest.count, digest.missing, digest.repeated, digest.reordered)
                table.add_row(str(number), digest.name, *map(str, row), "yes" if equal else "NO")
            for violation in faults.violations:
                console.print(f"violation: {violation}", markup=False)
            failed |= bool(faults.violations)
            total += faults.count
            console.print(f"run {number}: {digests[-1].count:,} events, {time.monotonic() - began:.0f} s")
    console.print(table)
    for name, count in sorted(total.items()):
        console.print(f"{count:4} {name}")
    console.print(f"{total.total()} faults in {time.monotonic() - began:.0f} s")
    return 1 if failed else 0


def read_one_run(stack: Stack, seed: str) -> tuple[list[LogDigest], Faults]:
    """Read the log of one run with all readers during faults.

    Return the digest of each reader, the stored log last, and the faults.
    """
    run_id = stack.create(*[f"seq {LINES}"] * (RUN_EVENTS // LINES))
    faults = Faults(stack.site, seed)
    with ThreadPoolExecutor(3) as threads, _client(stack, stack.url) as client:
        # A request may block until a fault has ended, so it is not sent by this thread, which ends the faults.
        ended = threads.submit(_wait, client, run_id)
        live = [
            threads.submit(_follow, stack, run_id, "client, stream", stack.url),
            threads.submit(_follow, stack, run_id, "client, long poll", stack.longpoll_url),
        ]
        while not ended.done():
            faults.tick(inject=True)
            time.sleep(TICK_S)
        faults.end()
        stack.site.heal()
        while not all(future.done() for future in live):
            faults.tick(inject=False)
            time.sleep(TICK_S)
        digests = [future.result() for future in live]
        digests.append(LogDigest("client, pages").add(client.logged(run_id)))
        if (status := ended.result().status) != "succeeded":
            faults.violations.append(f"the run is {status}")
    return [*digests, asyncio.run(_stored(stack, run_id))], faults


def _wait(client: Client, run_id: str) -> Run:
    while not (run := persistent(lambda: client.get_run(run_id))).ended:
        time.sleep(POLL_S)
    return run


def _follow(stack: Stack, run_id: str, name: str, url: str) -> LogDigest:
    with _client(stack, url) as client:
        return LogDigest(name).add(client.events(run_id))


def _client(stack: Stack, url: str) -> Client:
    return Client(url, stack.token, patience_s=PATIENCE_S)


async def _stored(stack: Stack, run_id: str) -> LogDigest:
    """Return the digest of the log that Redis and the object store hold."""
    redis, workspaces = stack.site.redis(), Workspaces(stack.site.config.s3)
    store, digest = RunStore(redis), LogDigest("Redis and S3")
    try:
        log = await store.log(run_id)
        for segment in log.segments:
            async for events in workspaces.logs.read(log, segment, after=0):
                digest.add(events)
        more = True
        while more:
            found, more = await store.read(run_id, after=digest.last)
            digest.add(found)
    finally:
        await redis.close()
        workspaces.close()
    return digest


if __name__ == "__main__":
    sys.exit(main())
