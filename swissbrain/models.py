"""What the API answers. Fields of later releases are ignored; times are ms since the epoch.

A test holds these types to `/openapi.json`.
"""

from typing import Any

import msgspec

from infra.contract.log import Event
from infra.contract.queue import QueueDepths
from infra.contract.runs import Attempt, RunError

__all__ = [
    "Attempt",
    "Event",
    "File",
    "Gap",
    "PlanStep",
    "QueueDepths",
    "Run",
    "RunError",
    "RunState",
    "RunSummary",
    "StreamToken",
]

TERMINAL = frozenset({"succeeded", "failed", "cancelled"})


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Base of answers."""


class PlanStep(_Answer, frozen=True, omit_defaults=True):
    """One tool call of a plan."""

    tool: str
    args: dict[str, Any] = {}
    timeout_s: float | None = None
    name: str | None = None


class RunState(_Answer, frozen=True):
    """Where a run stands after a transition. A running run that is cancelled stays `running` until it has stopped."""

    run_id: str
    status: str
    cancel_requested: bool


class RunSummary(_Answer, frozen=True):
    """A run in a list. `steps` is None without an explicit plan; `last_seq` is that of the last event of its log."""

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


class Run(_Answer, frozen=True):
    """A run. `links` holds the paths `self`, `logs`, `stream`, `files`."""

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
        """Whether it has succeeded, failed or been cancelled."""
        return self.status in TERMINAL


class AttemptList(_Answer, frozen=True):
    """Who worked on a run, oldest first."""

    attempts: list[Attempt]


class RunPage(_Answer, frozen=True):
    """A page of runs, newest first."""

    runs: list[RunSummary]
    next_cursor: str | None


class Gap(_Answer, frozen=True):
    """Events that are no longer there, from seq `first` to seq `last`."""

    first: int
    last: int


class End(_Answer, frozen=True):
    """The end of a stream: the run has ended, its last event is `last_seq`."""

    last_seq: int


class LogPage(_Answer, frozen=True):
    """A page of a log. `done`: the run has ended and its log ends here."""

    events: list[Event]
    next_after: int
    done: bool
    gap: Gap | None = None


class StreamToken(_Answer, frozen=True):
    """Leave for a browser to read the log of one run until `expires_ms`. `href`: the stream's path with the token."""

    token: str
    expires_ms: int
    href: str

    def __repr__(self) -> str:
        return f"StreamToken(expires_ms={self.expires_ms})"


class File(_Answer, frozen=True):
    """A file of a run's workspace."""

    path: str
    size_bytes: int
    modified_ms: int


class FileList(_Answer, frozen=True):
    """The files of a workspace, sorted by path."""

    files: list[File]


class Problem(_Answer, frozen=True):
    """The body of an error."""

    detail: str
    type: str = ""
    field: str | None = None
    run_status: str | None = None
