"""What the scripts are to do, in a few lines of Python: no Redis, no clock."""

from dataclasses import dataclass, field

from infra.contract.states import NEXT, TERMINAL, Outcome, Status

OK, SAME, LOST, REFUSED, GONE = Outcome.OK, Outcome.SAME, Outcome.LOST, Outcome.REFUSED, Outcome.GONE
LOWEST = 8


@dataclass
class Run:
    """A run as the model knows it. `place` is its place in the queue while it is ready."""

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
    place: tuple[int, int, str] | None = None
    leased: bool = False
    expired: bool = False
    dead: bool = False
    deleting: bool = False
    journal: set[str] = field(default_factory=set)
    ends: int = 0
    archived: int = 0
    unanswered: int = -1
    turn: int = 0
    alone: bool = False


class Model:
    """All runs. Each method is a script; it answers the outcome and changes the model as the script changes Redis."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self._moment = 0

    def ready(self) -> list[str]:
        """The ready runs in the order in which they will be granted."""
        return [
            run.id for run in sorted((r for r in self.runs.values() if r.place), key=lambda r: r.place or (0, 0, ""))
        ]

    def create(self, run_id: str, priority: int, max_attempts: int, *, start: bool) -> Outcome:
        if run_id in self.runs:
            return REFUSED if self.runs[run_id].deleting else SAME
        run = self.runs[run_id] = Run(run_id, priority, max_attempts)
        self._moment += 1
        if start:
            self._enqueue(run)
        return OK

    def start(self, run_id: str) -> Outcome:
        run = self.runs.get(run_id)
        if not run or run.deleting:
            return GONE
        if run.status in {Status.QUEUED, Status.RUNNING}:
            return SAME
        if run.status is not Status.CREATED:
            return REFUSED
        self._moment += 1
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

    def again(self, run_id: str, token: str, *, waiting: bool) -> Outcome:
        """`resume` of a waiting run, else `retry` of a failed or cancelled one."""
        run = self.runs.get(run_id)
        if not run or (run.deleting and not waiting):
            return GONE
        if token in run.tokens:
            return SAME
        if run.status not in ({Status.WAITING} if waiting else {Status.FAILED, Status.CANCELLED}):
            return REFUSED
        run.tokens.add(token)
        run.seq += 1
        if not waiting:
            run.attempt, run.cancel, run.dead = 0, False, False
        self._moment += 1
        self._enqueue(run)
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

    def claim(self, wanted: int, turn: int, heard: int | None) -> list[tuple[str, int]]:
        """The granted runs and their fences, in order. What was granted after the turn `heard` comes back first."""
        self._moment += 1
        if heard is not None:
            for run in [run for run in self.runs.values() if run.leased and heard < run.turn < turn]:
                counts, run.unanswered = run.alone and run.unanswered == run.fence - 1, run.fence
                self._recover(run, counts=counts)
        for run in [run for run in self.runs.values() if run.leased and run.expired]:
            self._recover(run, counts=True)
        granted: list[tuple[str, int]] = []
        for run_id in (picked := self.ready()[:wanted]):
            run = self.runs[run_id]
            run.place, run.status, run.leased, run.expired, run.batch = None, Status.RUNNING, True, False, 0
            run.fence, run.attempt, run.seq, run.turn = run.fence + 1, run.attempt + 1, run.seq + 1, turn
            run.alone = len(picked) == 1
            granted.append((run_id, run.fence))
        return granted

    def renew(self, run_id: str, fence: int) -> Outcome:
        run = self.runs.get(run_id)
        if not run:
            return GONE
        if run.fence != fence or run.status is not Status.RUNNING:
            return LOST
        run.expired = False
        return OK

    def emit(self, run_id: str, fence: int, batch: int, events: int, key: str | None) -> Outcome:
        return self._write(run_id, fence, batch, events, key)[0]

    def finish(self, run_id: str, fence: int, batch: int, status: Status) -> Outcome:
        outcome, run = self._write(run_id, fence, batch, 0, None)
        if run:
            run.leased = run.expired = False
            self._end(run, status)
        return outcome

    def release(self, run_id: str, fence: int, batch: int, *, burn: bool) -> Outcome:
        outcome, run = self._write(run_id, fence, batch, 1, None)
        if run:
            run.leased = run.expired = False
            run.attempt -= 0 if burn else 1
            self._moment += 1
            self._enqueue(run)
        return outcome

    def wait(self, run_id: str, fence: int, batch: int) -> Outcome:
        outcome, run = self._write(run_id, fence, batch, 1, None)
        if run:
            run.leased = run.expired = False
            run.status = Status.WAITING
        return outcome

    def trim(self, run_id: str, fence: int, last: int) -> Outcome:
        run = self.runs.get(run_id)
        if not run:
            return GONE
        if run.fence != fence:
            return LOST
        if last > run.archived and run.deleting:
            return GONE
        run.archived = max(run.archived, last)
        return OK

    def _write(self, run_id: str, fence: int, batch: int, events: int, key: str | None) -> tuple[Outcome, Run | None]:
        run = self.runs.get(run_id)
        if not run:
            return GONE, None
        if run.fence != fence:
            return LOST, None
        if run.batch == batch:
            return SAME, None
        if run.status is not Status.RUNNING:
            return LOST, None
        if batch != run.batch + 1:
            return REFUSED, None
        run.batch = batch
        run.seq += events
        if key:
            run.journal.add(key)
        return OK, run

    def _recover(self, run: Run, *, counts: bool) -> None:
        run.leased = run.expired = False
        if run.cancel:
            self._end(run, Status.CANCELLED)
        elif counts and run.attempt >= run.max_attempts:
            self._end(run, Status.FAILED)
        else:
            run.seq += 1
            run.attempt -= 0 if counts else 1
            self._enqueue(run, first=not counts)

    def _enqueue(self, run: Run, *, first: bool = False) -> None:
        run.status = Status.QUEUED
        run.place = (LOWEST - run.priority, 0 if first else self._moment, run.id)

    def _end(self, run: Run, status: Status) -> None:
        run.status, run.place = status, None
        run.seq += 1
        run.ends += 1
        run.dead = status is Status.FAILED
