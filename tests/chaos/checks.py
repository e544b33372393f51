"""What must be true of one run after the faults, seen from outside. Every function answers a list of complaints."""

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from swissbrain.client import Client
from swissbrain.errors import ApiError
from swissbrain.models import Event, Gap, Run
from tests.chaos.load import Sent
from tests.chaos.plans import CHAIN_FILE, LINES, is_effect, is_link

FOLLOW_S = 120.0
"""All that was followed has ended long before the questions begin; a silent connection is given up after 60 s."""
CLAIMED = ("run.started", "run.resumed")


@dataclass(frozen=True)
class Effect:
    """A line that an execution of a step has left. `step` counts from 0."""

    run_id: str
    step: int
    fence: int
    pid: int


def read_effects(path: Path) -> dict[str, list[Effect]]:
    """All effects in the order in which they happened, by run."""
    found: dict[str, list[Effect]] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        run_id, call, fence, pid, _ = line.split()
        effect = Effect(run_id, int(call.removeprefix("step-")), int(fence), int(pid))
        found.setdefault(run_id, []).append(effect)
    return found


def check_run(sent: Sent, client: Client, effects: Sequence[Effect]) -> tuple[list[str], Run, list[Event]]:
    """Everything about one run, and its record and log."""
    run = client.get_run(sent.run_id)
    logged = list(client.logged(sent.run_id))
    events = [event for event in logged if isinstance(event, Event)]
    complaints = [
        *_status(sent, run),
        *_log(sent, logged, run),
        *_rounds(sent, events),
        *_steps(sent, run, events),
        *_effects(sent, run, effects),
        *_content(sent, client, run, events),
        *_replayed(sent, client, logged),
    ]
    where = f"{sent.kind.name} {sent.run_id}"
    return [f"{where}: {complaint}" for complaint in complaints], run, events


def _status(sent: Sent, run: Run) -> Iterator[str]:
    allowed = {sent.kind.status}
    if sent.kind.cancel_s and sent.cancel == "refused":
        yield "a cancel long before its end was refused"
    if run.status not in allowed:
        yield f"it is {run.status} after {run.attempt} attempts: {run.error}"
    code = run.error.code if run.error else None
    if run.status == "failed" and code != "exit_code":
        yield f"it failed with {code}"
    if sent.delay_s and run.started_ms and run.started_ms < run.created_ms + sent.delay_s * 1000:
        yield f"it began {run.started_ms - run.created_ms} ms after its creation, not {sent.delay_s} s"


def _log(sent: Sent, logged: Sequence[Event | Gap], run: Run) -> Iterator[str]:
    numbers = [event.seq if isinstance(event, Event) else None for event in logged]
    if numbers != list(range(1, run.last_seq + 1)):
        yield f"the log has the numbers {numbers}, not those up to {run.last_seq}"
    fences = [event.data["fence"] for event in logged if isinstance(event, Event) and event.type in CLAIMED]
    if fences != sorted(set(fences)):
        yield f"the fences do not grow: {fences}"


def _rounds(sent: Sent, events: Sequence[Event]) -> Iterator[str]:
    """A run ends once; after each end but the last one it was retried."""
    kinds = [event.type for event in events]
    ends = [index for index, kind in enumerate(kinds) if kind == "run.finished"]
    retries = [index - 1 for index, kind in enumerate(kinds) if kind == "run.retried"]
    if len(ends) != sent.kind.retries + 1 or ends != [*retries, len(kinds) - 1]:
        yield f"run.finished is not the last event and the only one of its kind but for retries: {kinds}"
    if kinds.count("run.forked") != (sent.first > 0):
        yield f"run.forked is there {kinds.count('run.forked')} times"


def _steps(sent: Sent, run: Run, events: Sequence[Event]) -> Iterator[str]:
    finished = [event for event in events if event.type == "step.finished"]
    good = [event.step for event in finished if event.data["status"] == "succeeded"]
    if run.status == "cancelled":
        if good != list(range(len(good))) or len(finished) != len(good):
            yield f"the steps that are finished are {good} of {len(finished)}"
        return
    wanted = len(sent.kind.plan) if sent.kind.finished is None else sent.kind.finished
    if good != list(range(sent.first, wanted)):
        yield f"the steps that are finished are {good}, not those from {sent.first} up to {wanted}"
    if len(finished) - len(good) != sent.kind.retries + (run.status == "failed"):
        yield f"{len(finished) - len(good)} steps have failed"


def _effects(sent: Sent, run: Run, effects: Sequence[Effect]) -> Iterator[str]:
    places = [(effect.step, effect.fence) for effect in effects]
    for place, times in Counter(places).items():
        if times > 1:
            yield f"step {place[0]} was executed {times} times under fence {place[1]}"
    if [fence for _, fence in places] != sorted(fence for _, fence in places):
        yield f"an older owner acted after a newer one: (step, fence) {places}"
    if [step for step, _ in places] != sorted(step for step, _ in places):
        yield f"a completed step was executed again: (step, fence) {places}"
    known = {index for index, step in enumerate(sent.kind.plan) if index >= sent.first and is_effect(step)}
    done = {step for step, _ in places}
    if run.status == "succeeded" and done != known:
        yield f"the steps with an effect are {sorted(done)}, not {sorted(known)}"
    beyond = 1 if run.status in {"failed", "cancelled"} else len(sent.kind.plan)
    if any(step > beyond for step in done):
        yield f"steps were executed after the end: {sorted(done)}"


def _content(sent: Sent, client: Client, run: Run, events: Sequence[Event]) -> Iterator[str]:
    if links := sum(is_link(step) for step in sent.kind.plan):
        content = io.BytesIO()
        try:
            client.download(sent.run_id, CHAIN_FILE, content)
        except ApiError as exc:
            yield f"{CHAIN_FILE} cannot be had: {exc}"
        wanted = "".join(f"{number}\n" for number in range(links))
        if content.getvalue().decode() != wanted:
            yield f"{CHAIN_FILE} holds {content.getvalue()!r}"
    if sent.kind.name == "chatty":
        ends = [event.seq for event in events if event.type == "step.finished" and event.step == 0]
        begins = [event.seq for event in events if event.type == "step.started" and event.step == 0]
        if not ends or not begins:
            return
        own = [event for event in events if begins[-1] < event.seq < ends[0]]
        lines = [event.data["text"] for event in own if event.type == "tool.output"]
        if lines != [f"line {number}" for number in range(1, LINES + 1)]:
            yield f"its last execution logged {len(lines)} lines, not {LINES} in order"


def _replayed(sent: Sent, client: Client, logged: Sequence[Event | Gap]) -> Iterator[str]:
    """What was live, or is streamed now, is what the pages say."""
    if sent.followed:
        live, name = sent.live, "live"
        try:
            sent.followed.result(FOLLOW_S)
        except Exception as exc:
            api = "second API" if sent.far else "API"
            yield f"following it live at the {api} failed after {len(live)} events: {exc!r}"
            return
    else:
        live, name = list(client.events(sent.run_id)), "streamed"
    if live != logged:
        short = [getattr(item, "seq", item) for item in live]
        yield f"the {name} log has {len(live)} events, the pages {len(logged)}: {short}"
