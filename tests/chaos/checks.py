"""Checks of one run after the faults, through the API alone. Each check yields violations as text."""

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from swissbrain import Client
from swissbrain.errors import ApiError
from swissbrain.models import Event, Gap, Run
from tests.chaos.load import SentRun
from tests.chaos.plans import BEGUN, CHAIN_FILE, LINES, is_effect, is_link
from tests.chaos.prompt_checks import check_prompt_run
from tests.chaos.prompts import JOBS

FOLLOW_S = 120.0
"""Time to wait for a follower. All runs have ended by then, and the client drops a silent connection after 60 s."""
CLAIM_EVENTS = ("run.started", "run.resumed")


@dataclass(frozen=True)
class Effect:
    """Side effect of one execution of a step, as a line in the effects file.

    `step` counts from 0. In a run with a prompt it is the place of the call: 100 times its exchange, plus its index.
    """

    run_id: str
    step: int
    fence: int
    pid: int


def read_effects(path: Path) -> dict[str, list[Effect]]:
    """Return the effects of each run, in the order of execution."""
    found: dict[str, list[Effect]] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        run_id, call, fence, pid, _ = line.split()
        effect = Effect(run_id, _place(call), int(fence), int(pid))
        found.setdefault(run_id, []).append(effect)
    return found


def _place(call: str) -> int:
    kind, number, *index = call.split("-")
    return int(number) if kind == "step" else 100 * int(number) + int(index[0])


def check_run(sent: SentRun, client: Client, effects: Sequence[Effect]) -> tuple[list[str], Run, list[Event]]:
    """Check one run; return the violations, its record, and its log."""
    run = client.get_run(sent.run_id)
    logged = list(client.logged(sent.run_id))
    events = [event for event in logged if isinstance(event, Event)]
    violations = [
        *_status(sent, run),
        *_log(sent, logged, run),
        *_rounds(sent, events),
        *_steps(sent, run, events),
        *_effects(sent, run, effects),
        *_content(sent, client, run, events),
        *(check_prompt_run(sent.kind.name, client, run, events) if sent.kind.prompt else ()),
        *_replayed(sent, client, logged),
    ]
    subject = f"{sent.kind.name} {sent.run_id}"
    return [f"{subject}: {violation}" for violation in violations], run, events


def _status(sent: SentRun, run: Run) -> Iterator[str]:
    if sent.kind.cancel_s and sent.cancel == "refused":
        yield "the cancel of an unfinished run was refused"
    if run.status != sent.kind.status:
        yield f"status {run.status} instead of {sent.kind.status} after {run.attempt} attempts: {run.error}"
    code = run.error.code if run.error else None
    if run.status == "failed" and code != "exit_code":
        yield f"error code {code} instead of exit_code"
    if sent.delay_s and run.started_ms and run.started_ms < run.created_ms + sent.delay_s * 1000:
        yield f"started {run.started_ms - run.created_ms} ms after its creation instead of {sent.delay_s} s"


def _log(sent: SentRun, logged: Sequence[Event | Gap], run: Run) -> Iterator[str]:
    numbers = [event.seq if isinstance(event, Event) else None for event in logged]
    if numbers != list(range(1, run.last_seq + 1)):
        yield f"the log has the sequence numbers {numbers} instead of 1 to {run.last_seq}"
    fences = [event.data["fence"] for event in logged if isinstance(event, Event) and event.type in CLAIM_EVENTS]
    if fences != sorted(set(fences)):
        yield f"the fences do not increase: {fences}"


def _rounds(sent: SentRun, events: Sequence[Event]) -> Iterator[str]:
    """Check that each `run.finished` is followed by a retry, or is the last event."""
    types = [event.type for event in events]
    ends = [index for index, name in enumerate(types) if name == "run.finished"]
    retries = [index - 1 for index, name in enumerate(types) if name == "run.retried"]
    if len(ends) != sent.kind.retries + 1 or ends != [*retries, len(types) - 1]:
        yield f"run.finished is not followed by a retry or the end of the log: {types}"
    if types.count("run.forked") != (sent.first_step > 0):
        yield f"the log has {types.count('run.forked')} events run.forked"


def _steps(sent: SentRun, run: Run, events: Sequence[Event]) -> Iterator[str]:
    finished = [event for event in events if event.type == "step.finished"]
    succeeded = [event.step for event in finished if event.data["status"] == "succeeded"]
    if run.status == "cancelled":
        if succeeded != list(range(len(succeeded))) or len(finished) != len(succeeded):
            yield f"steps {succeeded} of {len(finished)} finished steps succeeded before the cancel"
        return
    expected = len(sent.kind.plan) if sent.kind.finished is None else sent.kind.finished
    if succeeded != list(range(sent.first_step, expected)):
        yield f"steps {succeeded} succeeded instead of steps {sent.first_step} to {expected - 1}"
    if len(finished) - len(succeeded) != sent.kind.retries + (run.status == "failed"):
        yield f"{len(finished) - len(succeeded)} steps failed"


def _effects(sent: SentRun, run: Run, effects: Sequence[Effect]) -> Iterator[str]:
    executions = [(effect.step, effect.fence) for effect in effects]
    for (step, fence), count in Counter(executions).items():
        if count > 1:
            yield f"step {step} was executed {count} times under fence {fence}"
    if [fence for _, fence in executions] != sorted(fence for _, fence in executions):
        yield f"an older owner executed a step after a newer owner: (step, fence) {executions}"
    if [step for step, _ in executions] != sorted(step for step, _ in executions):
        yield f"a completed step was executed again: (step, fence) {executions}"
    if sent.kind.prompt:
        count, executed = JOBS[sent.kind.name].effects, {step for step, _ in executions}
        if len(executed) > count or (run.status == "succeeded" and len(executed) < count):
            yield f"calls {sorted(executed)} have an effect; {count} should"
        return
    expected = {index for index, step in enumerate(sent.kind.plan) if index >= sent.first_step and is_effect(step)}
    executed = {step for step, _ in executions}
    if run.status == "succeeded" and executed != expected:
        yield f"steps {sorted(executed)} have an effect instead of steps {sorted(expected)}"
    last_allowed = 1 if run.status in {"failed", "cancelled"} else len(sent.kind.plan)
    if any(step > last_allowed for step in executed):
        yield f"steps were executed after the end of the run: {sorted(executed)}"


def _content(sent: SentRun, client: Client, run: Run, events: Sequence[Event]) -> Iterator[str]:
    if links := sum(is_link(step) for step in sent.kind.plan):
        content = io.BytesIO()
        try:
            client.download(sent.run_id, CHAIN_FILE, content)
        except ApiError as exc:
            yield f"{CHAIN_FILE} cannot be downloaded: {exc}"
        expected = "".join(f"{number}\n" for number in range(links))
        if content.getvalue().decode() != expected:
            yield f"{CHAIN_FILE} contains {content.getvalue()!r}"
    if sent.kind.name == "chatty":
        ends = [event.seq for event in events if event.type == "step.finished" and event.step == 0]
        starts = [event.seq for event in events if event.type == "step.started" and event.step == 0]
        if not ends or not starts:
            return
        # Interrupted executions before the last one may have logged any number of lines.
        last_execution = [event for event in events if starts[-1] < event.seq < ends[0]]
        lines = [event.data["text"] for event in last_execution if event.type == "tool.output"]
        lines = lines[lines[:1] == [BEGUN] :]
        if lines != [f"line {number}" for number in range(1, LINES + 1)]:
            yield f"the last execution logged {len(lines)} lines instead of lines 1 to {LINES} in order"


def _replayed(sent: SentRun, client: Client, logged: Sequence[Event | Gap]) -> Iterator[str]:
    """Check that the log followed live, or else streamed now, equals the log read in pages."""
    if sent.followed:
        live, name = sent.live, "live"
        try:
            sent.followed.result(FOLLOW_S)
        except Exception as exc:
            api = "second API" if sent.second else "API"
            yield f"the live stream of the {api} failed after {len(live)} events: {exc!r}"
            return
    else:
        live, name = list(client.events(sent.run_id)), "streamed"
    if live != logged:
        seqs = [getattr(item, "seq", item) for item in live]
        yield f"the {name} log has {len(live)} events, the pages have {len(logged)}: {seqs}"
