"""Types of the API's responses. Fields of later releases are ignored; times are ms since the epoch.

The types repeat the contract of the API, because this package must not depend on the servers. Tests hold them equal to
`/openapi.json` and to `infra.contract`.
"""

from typing import Any

import msgspec

TERMINAL = frozenset({"succeeded", "failed", "cancelled"})


class _Response(msgspec.Struct, frozen=True, kw_only=True):
    """Base of responses and of their parts."""


class PlanStep(_Response, frozen=True, omit_defaults=True):
    """Tool call of a plan."""

    tool: str
    args: dict[str, Any] = {}
    timeout_s: float | None = None
    name: str | None = None


class RunError(_Response, frozen=True, omit_defaults=True):
    """Error of a failed run. `code` is stable, `message` is for people, `step` is the index of the failed step."""

    code: str
    message: str
    step: int | None = None


class ForkOf(_Response, frozen=True):
    """Source of a fork: the run has taken over its first `from_step` steps."""

    run_id: str
    from_step: int


class QueuePlace(_Response, frozen=True):
    """Place of a queued run: `ahead` runs are before it, or at least that many if `ahead_capped`.

    `begins_ms` is the earliest time at which it may begin, if it is delayed; `workers_alive` the number of workers.
    """

    ahead: int
    ahead_capped: bool
    begins_ms: int | None
    workers_alive: int


class RunState(_Response, frozen=True):
    """State of a run after a transition. A cancelled run stays `running` until its worker has stopped it."""

    run_id: str
    status: str
    cancel_requested: bool


class RunSummary(_Response, frozen=True):
    """Run in a list. `steps` is None without an explicit plan; `last_seq` is the number of the last log event."""

    run_id: str
    status: str
    title: str
    steps: int | None
    priority: int
    metadata: dict[str, str]
    attempt: int
    cancel_requested: bool
    last_seq: int
    created_ms: int
    queued_ms: int | None
    started_ms: int | None
    finished_ms: int | None
    error: RunError | None


class Run(_Response, frozen=True):
    """Run. `links`: paths of its parts. `queue`: place of a queued run; None for other runs, and in lists."""

    run_id: str
    status: str
    prompt: str | None
    plan: list[PlanStep] | None
    priority: int
    max_attempts: int
    timeout_s: float
    metadata: dict[str, str]
    attempt: int
    cancel_requested: bool
    last_seq: int
    created_ms: int
    queued_ms: int | None
    started_ms: int | None
    finished_ms: int | None
    result: dict[str, Any] | None
    error: RunError | None
    links: dict[str, str]
    start_at_ms: int | None = None
    fork_of: ForkOf | None = None
    queue: QueuePlace | None = None

    @property
    def ended(self) -> bool:
        """True if the run has succeeded, failed or been cancelled."""
        return self.status in TERMINAL


class Attempt(_Response, frozen=True):
    """Claim of a run by a worker.

    `attempt` is its number since the last retry; a drained or unanswered claim is not counted. `outcome`: a terminal
    status, `waiting`, `drained`, `given_back` (to be tried again later), `lease_expired` (the worker was lost),
    `worker_restarted` (the worker's process ended, and another one took its place) or `unanswered` (the reply to the
    claim was lost); None, like `ended_ms`, until the claim ends.
    """

    fence: int
    attempt: int
    worker: str
    started_ms: int
    ended_ms: int | None = None
    outcome: str | None = None


class Step(_Response, frozen=True):
    """Step of a run. `index` counts from 0; `status` is `pending`, `running`, `succeeded`, `failed` or `cancelled`.

    `kept` is the path, at the API, of a result that is stored as a file. Fields are None where nothing is known.
    """

    index: int
    name: str | None
    tool: str
    status: str
    started_ms: int | None
    duration_ms: int | None
    result: dict[str, Any] | None
    kept: str | None
    error: RunError | None


class StepList(_Response, frozen=True):
    """Steps of a run, in order."""

    steps: list[Step]


class AttemptList(_Response, frozen=True):
    """Attempts of a run, oldest first."""

    attempts: list[Attempt]


class RunPage(_Response, frozen=True):
    """Page of runs, newest first. `unreadable`: ids of runs in this part of the list whose records cannot be read."""

    runs: list[RunSummary]
    next_cursor: str | None
    unreadable: list[str] = []
    complete: bool = True


class Problem(_Response, frozen=True):
    """Body of an error response. `missing`: paths of the announced files that have not been uploaded."""

    detail: str
    type: str = ""
    field: str | None = None
    run_status: str | None = None
    missing: list[str] = []


class BatchResult(_Response, frozen=True):
    """Result of one run of a batch: the run, or the problem."""

    status: int
    run: Run | None = None
    problem: Problem | None = None


class BatchResults(_Response, frozen=True):
    """Results of a batch, in the order of its runs."""

    results: list[BatchResult]


class Event(_Response, frozen=True, omit_defaults=True):
    """Event of a run's log. `seq` is 1, 2, 3 … without a gap; `ts` is ms since the epoch; `step` counts from 0."""

    seq: int
    ts: int
    type: str
    step: int | None = None
    data: dict[str, Any] = {}


class Gap(_Response, frozen=True):
    """Deleted events of a log, from seq `first` to seq `last`."""

    first: int
    last: int


class End(_Response, frozen=True):
    """End of a stream: the run has ended with event `last_seq`."""

    last_seq: int


class LogPage(_Response, frozen=True):
    """Page of a log. `done`: the run has ended and its log ends with this page.

    `prev_before` requests the page before this one, of pages that are read backwards; None at the beginning.
    """

    events: list[Event]
    next_after: int
    done: bool
    gap: Gap | None = None
    first_seq: int | None = None
    prev_before: int | None = None


class StreamToken(_Response, frozen=True):
    """Token for a browser to read the log of one run until `expires_ms`. `href`: path of the stream with it."""

    token: str
    expires_ms: int
    href: str

    def __repr__(self) -> str:
        return f"StreamToken(expires_ms={self.expires_ms})"


class File(_Response, frozen=True):
    """File in the workspace of a run."""

    path: str
    size_bytes: int
    modified_ms: int


class FileLink(_Response, frozen=True):
    """Address from which anyone can fetch a file until `expires_ms`."""

    url: str
    expires_ms: int
    content_type: str
    size_bytes: int

    def __repr__(self) -> str:
        return f"FileLink(expires_ms={self.expires_ms})"


class UploadTarget(_Response, frozen=True):
    """Request that stores the content of an announced file: send exactly these headers before `expires_ms`."""

    method: str
    url: str
    headers: dict[str, str]
    expires_ms: int

    def __repr__(self) -> str:
        return f"UploadTarget(expires_ms={self.expires_ms})"


class InputFile(_Response, frozen=True):
    """File that a run begins with: uploaded (`size_bytes`, `sha256`), or copied from `source_path` of `from_run`."""

    path: str
    size_bytes: int | None = None
    sha256: str | None = None
    from_run: str | None = None
    source_path: str | None = None
    upload: UploadTarget | None = None


class FileList(_Response, frozen=True):
    """Files of a workspace, sorted by path."""

    files: list[File]


class QueueDepths(_Response, frozen=True):
    """Number of runs in each part of the queue, of all users.

    `pending` counts wake tokens; it equals `ready` whenever no claim is under way. `unreadable` counts active runs that
    were set aside because their records are damaged.
    """

    pending: int
    ready: int
    delayed: int
    running: int
    dead: int
    unreadable: int = 0
