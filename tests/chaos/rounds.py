"""A round: load and faults for a while, then peace, then the questions."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise

from infra.local_executor.scratch_root import LOCK
from swissbrain.client import Client
from swissbrain.models import Event
from tests.chaos.checks import CLAIMED, check_run, read_effects
from tests.chaos.faults import TICK_S, Faults
from tests.chaos.load import Load, Sent, persistent
from tests.chaos.site import Site
from tests.contract.driver import keys_without_ttl

WORKERS = ("w1", "w2", "w3")
SETTLE_S = 300.0


@dataclass
class Report:
    """What happened in one or more rounds."""

    faults: Counter[str] = field(default_factory=Counter)
    runs: Counter[tuple[str, str]] = field(default_factory=Counter)
    attempts: list[int] = field(default_factory=list)
    repeated_effects: int = 0
    effects: int = 0
    events: int = 0
    followed_live: int = 0
    settle_s: list[float] = field(default_factory=list)
    takeover_s: list[float] = field(default_factory=list)
    cancel_s: list[float] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


def play(
    site: Site,
    seed: str,
    seconds: float,
    report: Report,
    *,
    per_second: float = 4.0,
    wanted: Callable[[str], bool] = lambda _: True,
) -> None:
    """Play one round and add what happened to the report. `wanted` picks among the names of the faults."""
    for name in WORKERS if not site.workers else ():
        site.worker(name, slots=4)
    with site.client() as client:
        site.settled |= {run.run_id for run in client.runs()}
    load, faults = Load(site, seed, per_second), Faults(site, seed, wanted)
    load.start()
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            faults.tick(inject=True)
            time.sleep(TICK_S)
    finally:
        faults.end()
        site.heal()
        _meanwhile(faults, load.stop)
    settled = time.monotonic()
    report.complaints += _settle(site, faults, load.sent)
    report.settle_s.append(time.monotonic() - settled)
    report.faults += faults.count
    report.complaints += [*load.faults, *faults.complaints]
    _question(site, load.sent, faults, report)


def _meanwhile(faults: Faults, call: Callable[[], None]) -> None:
    """Make the call, and start again what has ended until it returns."""
    with ThreadPoolExecutor(1) as thread:
        called = thread.submit(call)
        while not called.done():
            faults.tick(inject=False)
            time.sleep(TICK_S)
        called.result()


def _settle(site: Site, faults: Faults, sent: Sequence[Sent]) -> list[str]:
    """Wait until all runs have ended and nothing is left of them."""
    deadline = time.monotonic() + SETTLE_S
    left = {run.run_id for run in sent}
    with site.client() as client:
        while True:
            faults.tick(inject=False)
            left -= {run.run_id for run in persistent(lambda: list(client.runs())) if run.finished_ms is not None}
            remains = [] if left else _remains(site)
            if not left and not remains:
                return []
            if time.monotonic() > deadline:
                return [*_unfinished(client, left), *remains]
            time.sleep(0.3)


def _unfinished(client: Client, run_ids: set[str]) -> list[str]:
    runs = [client.get_run(run_id) for run_id in sorted(run_ids)]
    return [f"{run.run_id} has not ended: {run.status}, attempt {run.attempt}, {run.metadata}" for run in runs]


def _remains(site: Site) -> list[str]:
    """Processes, scratch folders and entries of the queue that should be gone when all runs have ended."""
    found = [f"the process {pid} is left: {command}" for pid, command in site.strays().items()]
    found += [f"{path} is left" for path in site.scratch.glob("*/*") if path.name != LOCK]
    return found + [f"{key} holds {count}" for key, count in site.queue().items() if count]


def _question(site: Site, sent: Sequence[Sent], faults: Faults, report: Report) -> None:
    effects = read_effects(site.effects_file)
    logs: dict[str, list[Event]] = {}
    with site.client() as client:
        listed = Counter(run.run_id for run in client.runs())
        for one in sent:
            if listed[one.run_id] != 1:
                report.complaints.append(f"{one.run_id} is listed {listed[one.run_id]} times")
            own = effects.get(one.run_id, [])
            complaints, run, events = check_run(one, client, own)
            report.complaints += complaints
            report.runs[one.kind.name, run.status] += 1
            report.attempts.append(run.attempt)
            report.effects += len(own)
            report.repeated_effects += len(own) - len({effect.step for effect in own})
            report.events += len(events)
            report.followed_live += one.followed is not None
            if one.cancelled_ms and run.finished_ms and run.status == "cancelled":
                report.cancel_s.append(max(0, run.finished_ms - one.cancelled_ms) / 1000)
            logs[one.run_id] = events
    report.takeover_s += _takeovers(faults.killed, logs)
    own_runs = Counter(listed.keys() - site.settled)
    if unknown := set(own_runs) - {one.run_id for one in sent}:
        report.complaints.append(f"runs that nobody was told of: {sorted(unknown)}")
    report.complaints += [f"a log tells of {error}" for error in site.errors()]
    report.complaints += [f"{key} will never expire" for key in asyncio.run(_eternal(site))]


async def _eternal(site: Site) -> list[str]:
    redis = site.redis()
    try:
        return await keys_without_ttl(redis)
    finally:
        await redis.close()


def _takeovers(killed: Sequence[tuple[int, str]], logs: dict[str, list[Event]]) -> list[float]:
    """How long after the kill of its worker each run was somebody else's, in seconds."""
    found = []
    for events in logs.values():
        claims = [event for event in events if event.type in CLAIMED]
        for before, after in pairwise(claims):
            given_back = [e.ts for e in events if e.type == "run.requeued" and before.seq < e.seq < after.seq]
            if not given_back:  # retried
                continue
            lost = [ms for ms, name in killed if name == before.data["worker"] and before.ts <= ms < given_back[0]]
            found += [(after.ts - ms) / 1000 for ms in lost[:1]]
    return found
