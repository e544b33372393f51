"""Types of responses that hold lists; the methods of the client return what is in them."""

import msgspec

from swissbrain.models import Attempt, Event, File, Gap, Problem, Response, Run, RunSummary, Step


class AttemptList(Response, frozen=True):
    """Attempts of a run, oldest first."""

    attempts: list[Attempt]


class StepList(Response, frozen=True):
    """Steps of a run's plan, in order."""

    run_id: str
    steps: list[Step]


class RunPage(Response, frozen=True):
    """Page of runs, newest first. `unreadable`: ids of runs in this part of the list whose records cannot be read."""

    runs: list[RunSummary]
    next_cursor: str | None
    unreadable: list[str] = msgspec.field(default_factory=list)
    complete: bool = True


class BatchResult(Response, frozen=True):
    """Result of one run of a batch: the run, or the problem."""

    status: int
    run: Run | None = None
    problem: Problem | None = None


class BatchResults(Response, frozen=True):
    """Results of a batch, in the order of its runs."""

    results: list[BatchResult]


class LogPage(Response, frozen=True):
    """Page of a log. `done`: the run has ended and its log ends with this page.

    `prev_before` requests the page before this one, of pages that are read backwards; None at the beginning.
    """

    events: list[Event]
    next_after: int
    done: bool
    gap: Gap | None = None
    first_seq: int | None = None
    prev_before: int | None = None


class FileList(Response, frozen=True):
    """Files of a workspace, sorted by path."""

    files: list[File]
