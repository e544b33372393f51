"""Round of the chaos suite: load during faults, then recovery without faults, then the checks of every run."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise

from infra.scratch_root import LOCK
from swissbrain import Client
from swissbrain.models import Event
from tests.chaos.checks import CLAIM_EVENTS, check_run, read_effects
from tests.chaos.faults import MODEL, TICK_S, Faults
from tests.chaos.load import Load, SentRun, persistent
from tests.chaos.plans import KINDS, Kind
from tests.chaos.prompts import PROMPT_KINDS
from tests.chaos.site import ChaosSite
from tests.contract.driver import keys_without_ttl

WORKERS = ("w1", "w2", "w3")
SETTLE_S = 300.0
OUTPUT = "output"
"""Folder for the output of programs that run in a cluster."""


@dataclass
class Report:
    """Results of one or more rounds."""

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
    violations: list[str] = field(default_factory=list)


def play(
    site: ChaosSite,
    seed: str,
    seconds: float,
    report: Report,
    *,
    per_second: float = 4.0,
    selected: Callable[[str], bool] = lambda _: True,
    kinds: Sequence[Kind] = (*KINDS, *PROMPT_KINDS),
) -> None:
    """Play one round and add its results to the report. `selected` picks faults by name.

    Workers that were started before need a model for the `kinds` with a prompt.
    """
    for name in WORKERS if not site.workers else ():
        site.worker(name, slots=4, model=any(kind.prompt for kind in kinds))
    with site.client() as client:
        site.checked_runs |= {run.run_id for run in client.runs()}
    prompts = any(kind.prompt for kind in kinds)
    load = Load(site, seed, per_second, kinds)
    faults = Faults(site, seed, lambda name: selected(name) and (prompts or not name.startswith(MODEL)))
    load.start()
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            faults.tick(inject=True)
            time.sleep(TICK_S)
    finally:
        faults.end()
        site.heal()
        _stop_load(load, faults)
    stopped = time.monotonic()
    report.violations += _settle(site, faults, load.sent)
    report.settle_s.append(time.monotonic() - stopped)
    report.faults += faults.count
    report.violations += [*load.errors, *faults.violations]
    _check_all(site, load.sent, faults, report)


def _stop_load(load: Load, faults: Faults) -> None:
    """Stop the load, and meanwhile restart processes that end: the last requests need workers."""
    with ThreadPoolExecutor(1) as thread:
        stopping = thread.submit(load.stop)
        while not stopping.done():
            faults.tick(inject=False)
            time.sleep(TICK_S)
        stopping.result()


def _settle(site: ChaosSite, faults: Faults, sent: Sequence[SentRun]) -> list[str]:
    """Wait until all runs have ended and no process, folder or queue entry is left of them; return violations."""
    deadline = time.monotonic() + SETTLE_S
    unfinished = {run.run_id for run in sent}
    with site.client() as client:
        while True:
            faults.tick(inject=False)
            unfinished -= {run.run_id for run in persistent(lambda: list(client.runs())) if run.finished_ms is not None}
            leftovers = [] if unfinished else _leftovers(site)
            if not unfinished and not leftovers:
                return []
            if time.monotonic() > deadline:
                return [*_unfinished(client, unfinished), *leftovers]
            time.sleep(0.3)


def _unfinished(client: Client, run_ids: set[str]) -> list[str]:
    runs = [client.get_run(run_id) for run_id in sorted(run_ids)]
    return [f"{run.run_id} has not ended: {run.status}, attempt {run.attempt}, {run.metadata}" for run in runs]


def _leftovers(site: ChaosSite) -> list[str]:
    """List the processes, scratch folders and queue entries that must not exist once all runs have ended."""
    found = [f"process {pid} is still running: {command}" for pid, command in site.orphans().items()]
    found += site.cluster.leftovers() if site.cluster else []
    entries = [*site.scratch.glob("*/*"), *site.scratch.glob(f"*/{OUTPUT}/*")]
    found += [f"{path} still exists" for path in entries if path.name not in {LOCK, OUTPUT}]
    return found + [f"{key} still has {count} entries" for key, count in site.queue_lengths().items() if count]


def _check_all(site: ChaosSite, sent: Sequence[SentRun], faults: Faults, report: Report) -> None:
    effects = read_effects(site.effects_file)
    logs: dict[str, list[Event]] = {}
    with site.client() as client:
        listed = Counter(run.run_id for run in client.runs())
        for one in sent:
            if listed[one.run_id] != 1:
                report.violations.append(f"{one.run_id} is listed {listed[one.run_id]} times")
            run_effects = effects.get(one.run_id, [])
            violations, run, events = check_run(one, client, run_effects)
            report.violations += violations
            report.runs[one.kind.name, run.status] += 1
            report.attempts.append(run.attempt)
            report.effects += len(run_effects)
            report.repeated_effects += len(run_effects) - len({effect.step for effect in run_effects})
            report.events += len(events)
            report.followed_live += one.followed is not None
            if one.cancelled_ms and run.finished_ms and run.status == "cancelled":
                report.cancel_s.append(max(0, run.finished_ms - one.cancelled_ms) / 1000)
            logs[one.run_id] = events
    report.takeover_s += _takeovers(faults.killed, logs)
    if unknown := listed.keys() - site.checked_runs - {one.run_id for one in sent}:
        report.violations.append(f"runs whose creation was never acknowledged: {sorted(unknown)}")
    report.violations += [f"error in a process log: {error}" for error in site.errors()]
    if site.cluster:
        report.violations += site.cluster.violations({one.run_id for one in sent if not one.kind.retries})
    report.violations += [f"{key} has no TTL" for key in asyncio.run(_keys_without_ttl(site))]


async def _keys_without_ttl(site: ChaosSite) -> list[str]:
    redis = site.redis()
    try:
        return await keys_without_ttl(redis)
    finally:
        await redis.close()


def _takeovers(killed: Sequence[tuple[int, str]], logs: dict[str, list[Event]]) -> list[float]:
    """Return the seconds from the kill of a worker to the next claim of its run, for each such run."""
    found = []
    for events in logs.values():
        claims = [event for event in events if event.type in CLAIM_EVENTS]
        for before, after in pairwise(claims):
            requeued = [e.ts for e in events if e.type == "run.requeued" and before.seq < e.seq < after.seq]
            if not requeued:  # the run had ended, and was retried
                continue
            kills = [ms for ms, name in killed if name == before.data["worker"] and before.ts <= ms < requeued[0]]
            found += [(after.ts - ms) / 1000 for ms in kills[:1]]
    return found
