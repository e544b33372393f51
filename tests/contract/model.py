"""Model of the scripts: the specified outcome and state change of each, without Redis and without a clock."""

from dataclasses import dataclass, field

from infra.contract.errors import ContractError, InvalidInput, LimitExceeded
from infra.contract.journal import STARTED
from infra.contract.queue import ClaimSeq
from infra.contract.states import NEXT, TERMINAL, Outcome, Status

OK, SAME, LOST, REFUSED, GONE = Outcome.OK, Outcome.SAME, Outcome.LOST, Outcome.REFUSED, Outcome.GONE
MAX_PRIORITY = 8
ACTIVE = {Status.QUEUED, Status.RUNNING, Status.WAITING}


@dataclass
class ModelRun:
    """State of a run in the model.

    `queue_order` sorts the ready runs, and is None for all others. `claim_number` is the number of the claim that
    granted the run last, `process` the worker process that sent that claim, `granted_alone` whether that claim granted
    no other run. `unanswered` is the fence of the last grant that was undone because its reply was lost, `lost` the
    fence of the last attempt whose worker was lost. `inputs` and `files` are sizes by path; `begun`: the run has been
    queued. `unable` counts the workers in a row that were unable to do it. `open`: ids of the open requests of a
    waiting run with their `on_expiry`; `overdue`: those that have expired; `answers`: ids that have an answer.
    `messages`, `read`: number of messages, and of the last that was read. `used`: input tokens of each exchange.
    """

    id: str
    priority: int
    max_attempts: int
    status: Status = Status.CREATED
    attempt: int = 0
    fence: int = 0
    batch: int = 0
    seq: int = 0
    cancel: bool = False
    tokens: set[str] = field(default_factory=set)
    queue_order: tuple[int, int, str] | None = None
    leased: bool = False
    expired: bool = False
    dead: bool = False
    deleting: bool = False
    journal: set[str] = field(default_factory=set)
    inputs: dict[str, int] = field(default_factory=dict)
    inputs_version: int = 0
    files: dict[str, int] = field(default_factory=dict)
    begun: bool = False
    ends: int = 0
    archived: int = 0
    unanswered: int = -1
    lost: int = -1
    unable: int = 0
    open: dict[str, str] = field(default_factory=dict)
    overdue: set[str] = field(default_factory=set)
    answers: set[str] = field(default_factory=set)
    messages: int = 0
    read: int = 0
    interrupt: bool = False
    process: str = ""
    claim_number: int = 0
    granted_alone: bool = False
    used: list[int] = field(default_factory=list)


class Model:
    """State of all runs and workers. Each method models one script: it changes them alike, and returns the outcome."""

    def __init__(self) -> None:
        self.runs: dict[str, ModelRun] = {}
        # Logical clock: only the order of the scripts that enqueue runs matters, not the time between them.
        self._now = 0
        self.workers: set[str] = set()
        # Of the runs of a user, also of those that have been deleted since.
        self.used: list[int] = []

    def ready(self) -> list[str]:
        """Return the ids of the ready runs in the order in which they will be granted."""
        ordered = sorted((run.queue_order, run.id) for run in self.runs.values() if run.queue_order)
        return [run_id for _, run_id in ordered]

    def create(self, run_id: str, priority: int, max_attempts: int, *, start: bool) -> Outcome:
        if run_id in self.runs:
            return REFUSED if self.runs[run_id].deleting else SAME
        run = self.runs[run_id] = ModelRun(run_id, priority, max_attempts)
        self._now += 1
        if start:
            self._enqueue(run)
        return OK

    def announce(self, run_id: str, path: str, size: int, max_bytes: int) -> Outcome | type[ContractError]:
        """Contents are equal if their sizes are."""
        run = self.runs.get(run_id)
        if not run or run.deleting:
            return GONE
        if run.status is not Status.CREATED:
            return REFUSED
        if run.inputs.get(path) == size:
            return SAME
        folders = [sorted([f"{path}/", f"{other}/"], key=len) for other in run.inputs if other != path]
        if any(longer.startswith(shorter) for shorter, longer in folders):
            return InvalidInput
        wanted = run.inputs | {path: size}
        if sum(wanted.values()) > max_bytes:
            return LimitExceeded
        run.inputs = wanted
        run.inputs_version += 1
        return OK

    def start(self, run_id: str, version: int) -> Outcome:
        run = self.runs.get(run_id)
        if not run or run.deleting:
            return GONE
        if run.status in {Status.QUEUED, Status.RUNNING}:
            return SAME
        if run.status is not Status.CREATED or version != run.inputs_version:
            return REFUSED
        self._now += 1
        self._enqueue(run)
        return OK

    def cancel(self, run_id: str) -> Outcome:
        run = self.runs.get(run_id)
        if not run:
            return GONE
        if run.status is Status.CANCELLED:
            return SAME
        if Status.CANCELLED not in NEXT[run.status]:
            return REFUSED
        before, run.cancel = run.cancel, True
        if run.status is Status.RUNNING:
            return SAME if before else OK
        self._end(run, Status.CANCELLED)
        return OK

    def retry(self, run_id: str, token: str, version: int) -> Outcome:
        run = self.runs.get(run_id)
        if not run or run.deleting:
            return GONE
        if token in run.tokens:
            return SAME
        if run.status not in {Status.FAILED, Status.CANCELLED}:
            return REFUSED
        if not run.begun and version != run.inputs_version:
            return REFUSED
        run.tokens.add(token)
        run.seq += 1
        run.attempt, run.cancel, run.dead, run.unable, run.interrupt = 0, False, False, 0, False
        run.journal.discard(STARTED)
        self._now += 1
        self._enqueue(run)
        return OK

    def resume(self, run_id: str, token: str, ids: set[str]) -> Outcome:
        run = self.runs.get(run_id)
        if not run:
            return GONE
        if token in run.tokens:
            return SAME
        if run.status is not Status.WAITING or not ids <= set(run.open) - run.overdue:
            return REFUSED
        run.tokens.add(token)
        self._now += 1
        self._answer(run, ids)
        return OK

    def message(self, run_id: str, token: str) -> Outcome:
        run = self.runs.get(run_id)
        if not run or run.deleting:
            return GONE
        if token in run.tokens:
            return SAME
        if run.status not in ACTIVE:
            return REFUSED
        run.tokens.add(token)
        run.messages += 1
        run.seq += 1
        return OK

    def interrupt(self, run_id: str) -> Outcome:
        run = self.runs.get(run_id)
        if not run or run.deleting:
            return GONE
        if run.status not in ACTIVE:
            return REFUSED
        if run.interrupt or run.status is Status.WAITING:
            return SAME
        run.interrupt = True
        return OK

    def mark_deleting(self, run_id: str) -> Outcome:
        run = self.runs.get(run_id)
        if not run:
            return GONE
        if run.deleting:
            return SAME
        if run.status is not Status.CREATED and run.status not in TERMINAL:
            return REFUSED
        run.deleting = True
        return OK

    def delete(self, run_id: str) -> Outcome:
        run = self.runs.get(run_id)
        if not run:
            return GONE
        if not run.deleting:
            return REFUSED
        del self.runs[run_id]
        return OK

    def claim(self, wanted: int, seq: ClaimSeq) -> list[tuple[str, int]]:
        """Undo lost claims, recover runs of dead processes; return the granted runs and their fences, in order."""
        self._now += 1
        self.workers = (self.workers | {seq.process}) - {*seq.dead}
        leased = [run for run in self.runs.values() if run.leased]
        if seq.last_acked is not None:
            numbers = range(seq.last_acked + 1, seq.number)
            undone = [run for run in leased if run.process == seq.process and run.claim_number in numbers]
            for run in undone:
                # Two lost replies in a row, the second for this run alone: its record may be too large for a reply.
                counts = run.granted_alone and run.unanswered == run.fence - 1
                run.unanswered = run.fence
                self._recover(run, counts=counts)
        for run in leased:
            # A run whose previous attempt was lost as well waits for its lease, unless it is cancelled.
            if run.leased and run.process in seq.dead and (run.cancel or run.lost != run.fence - 1):
                run.lost = run.fence
                self._recover(run, counts=True)
        for run in leased:
            if run.leased and run.expired:
                run.lost = run.fence
                self._recover(run, counts=True)
        self._expire_requests()
        granted: list[tuple[str, int]] = []
        for run_id in (picked := self.ready()[:wanted]):
            run = self.runs[run_id]
            run.queue_order, run.status, run.leased, run.expired, run.batch = None, Status.RUNNING, True, False, 0
            run.fence, run.attempt, run.seq = run.fence + 1, run.attempt + 1, run.seq + 1
            run.process, run.claim_number, run.granted_alone = seq.process, seq.number, len(picked) == 1
            granted.append((run_id, run.fence))
        return granted

    def _expire_requests(self) -> None:
        for run in self.runs.values():
            if any(run.open[name] == "fail" for name in run.overdue):
                self._end(run, Status.FAILED)
            elif run.overdue:
                self._answer(run, set(run.overdue))

    def renew(self, run_id: str, fence: int) -> Outcome:
        run = self.runs.get(run_id)
        if not run:
            return GONE
        if run.fence != fence or run.status is not Status.RUNNING:
            return LOST
        run.expired = False
        return OK

    def emit(
        self, run_id: str, fence: int, batch: int, events: int, key: str | None, read: int = 0, used: int = 0
    ) -> Outcome:
        outcome, run = self._write(run_id, fence, batch, events, key)
        if run:
            run.read = max(run.read, read)
            self._count(run, used)
        return outcome

    def finish(self, run_id: str, fence: int, batch: int, status: Status, read: int, used: int) -> Outcome:
        held = self.runs.get(run_id)
        before = held.batch if held else 0
        outcome, run = self._write(run_id, fence, batch, 0, None)
        if run and status is Status.SUCCEEDED and run.messages > read:
            run.batch = before
            return REFUSED
        if run:
            run.leased = run.expired = False
            self._count(run, used)
            self._end(run, status)
        return outcome

    def release(
        self, run_id: str, fence: int, batch: int, *, burn: bool, unable: bool = False, key: str | None, used: int
    ) -> Outcome:
        outcome, run = self._write(run_id, fence, batch, 1, key)
        if run:
            self._count(run, used)
            run.leased = run.expired = False
            run.attempt -= 0 if burn else 1
            run.unable += 1 if unable else 0
            self._now += 1
            self._enqueue(run)
        return outcome

    def wait(self, run_id: str, fence: int, batch: int, requests: dict[str, str], used: int) -> Outcome:
        held = self.runs.get(run_id)
        before = (held.batch, held.seq) if held else (0, 0)
        outcome, run = self._write(run_id, fence, batch, 1, None)
        if run and run.cancel:
            run.batch, run.seq = before
            return REFUSED
        if run:
            run.leased = run.expired = False
            run.status = Status.WAITING
            self._count(run, used)
            run.attempt -= 1
            run.open, run.answers = dict(requests), run.answers if run.interrupt else set()
            run.interrupt = False
        return outcome

    def trim(self, run_id: str, fence: int, last: int) -> Outcome:
        run = self.runs.get(run_id)
        if not run:
            return GONE
        if run.fence != fence:
            return LOST
        if last > run.archived and run.deleting:  # the objects to delete may have been listed already
            return GONE
        run.archived = max(run.archived, last)
        return OK

    def _write(
        self, run_id: str, fence: int, batch: int, events: int, key: str | None
    ) -> tuple[Outcome, ModelRun | None]:
        run = self.runs.get(run_id)
        if not run:
            return GONE, None
        if run.fence != fence:
            return LOST, None
        if run.batch == batch:  # a repeat is recognised even after it has ended the run
            return SAME, None
        if run.status is not Status.RUNNING:
            return LOST, None
        if batch != run.batch + 1:
            return REFUSED, None
        run.batch = batch
        run.seq += events
        if key:
            run.journal.add(key)
            run.unable = 0 if key != STARTED else run.unable
        return OK, run

    def _count(self, run: ModelRun, used: int) -> None:
        if used:
            run.used.append(used)
            self.used.append(used)

    def _recover(self, run: ModelRun, *, counts: bool) -> None:
        run.leased = run.expired = False
        if run.cancel:
            self._end(run, Status.CANCELLED)
        elif counts and run.attempt >= run.max_attempts:
            self._end(run, Status.FAILED)
        else:
            run.seq += 1
            run.attempt -= 0 if counts else 1
            self._enqueue(run, first=not counts)

    def _enqueue(self, run: ModelRun, *, first: bool = False) -> None:
        if not run.begun:
            run.begun, run.files = True, dict(run.inputs)
        run.status = Status.QUEUED
        run.queue_order = (MAX_PRIORITY - run.priority, 0 if first else self._now, run.id)

    def _answer(self, run: ModelRun, ids: set[str]) -> None:
        run.answers |= ids
        run.overdue -= ids
        run.seq += len(ids)
        run.open = {name: on_expiry for name, on_expiry in run.open.items() if name not in ids}
        if not run.open:
            self._enqueue(run)

    def _end(self, run: ModelRun, status: Status) -> None:
        run.open, run.overdue = {}, set()
        run.status, run.queue_order = status, None
        run.seq += 1
        run.ends += 1
        run.dead = status is Status.FAILED
