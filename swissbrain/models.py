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
    """Run. `links` holds the paths `self`, `logs`, `stream`, `files`."""

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

    @property
    def ended(self) -> bool:
        """True if the run has succeeded, failed or been cancelled."""
        return self.status in TERMINAL


class Attempt(_Response, frozen=True):
    """Claim of a run by a worker.

    `attempt` is its number since the last retry; drained, unable and unanswered claims do not count. `outcome`: a
    terminal status, `waiting`, `drained`, `given_back` (to be tried again later), `unable` (the worker lacked a program
    that the next step needs), `lease_expired` (the worker was lost), `worker_restarted` (the worker's process ended,
    and another one took its place) or `unanswered` (the reply to the claim was lost); None, like `ended_ms`, until the
    claim ends.
    """

    fence: int
    attempt: int
    worker: str
    started_ms: int
    ended_ms: int | None = None
    outcome: str | None = None


class AttemptList(_Response, frozen=True):
    """Attempts of a run, oldest first."""

    attempts: list[Attempt]


class RunPage(_Response, frozen=True):
    """Page of runs, newest first. `unreadable`: ids of runs in this part of the list whose records cannot be read."""

    runs: list[RunSummary]
    next_cursor: str | None
    unreadable: list[str] = []


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
    """Page of a log. `done`: the run has ended and its log ends with this page."""

    events: list[Event]
    next_after: int
    done: bool
    gap: Gap | None = None


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


class Problem(_Response, frozen=True):
    """Body of an error response."""

    detail: str
    type: str = ""
    field: str | None = None
    run_status: str | None = None
