"""Types of the API's responses. Fields of later releases are ignored; times are ms since the epoch.

They repeat the contract of the API, because this package must not depend on the servers; tests compare the two.
"""

from typing import Any

import msgspec

from swissbrain.agent import ApprovalRule, Limits, ModelUsage, Waiting

TERMINAL = frozenset({"succeeded", "failed", "cancelled"})


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """Base of responses and of their parts."""


class PlanStep(Response, frozen=True, omit_defaults=True):
    """Tool call of a plan."""

    tool: str
    args: dict[str, Any] = {}
    timeout_s: float | None = None
    name: str | None = None


class RunError(Response, frozen=True, omit_defaults=True):
    """Error of a failed run. `code` is stable, `message` is for people, `step` is the index of the failed step."""

    code: str
    message: str
    step: int | None = None


class ForkOf(Response, frozen=True):
    """Source of a fork: the run has taken over its first `from_step` steps."""

    run_id: str
    from_step: int


class QueuePlace(Response, frozen=True):
    """Place of a queued run: `ahead` runs are before it, or at least that many if `ahead_capped`.

    `begins_ms` is the earliest time at which it may begin, if it is delayed; `workers_alive` the number of workers.
    """

    ahead: int
    ahead_capped: bool
    begins_ms: int | None
    workers_alive: int


class RunState(Response, frozen=True):
    """State of a run after a transition. A cancelled run stays `running` until its worker has stopped it."""

    run_id: str
    status: str
    cancel_requested: bool


class RunSummary(Response, frozen=True):
    """Run in a list. `steps` is None without an explicit plan; `last_seq` is the number of the last log event.

    `worked_ms`: sum of the durations of all attempts that have ended, without the time between them.
    """

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
    worked_ms: int | None = None
    waiting: Waiting | None = None
    usage: ModelUsage | None = None


class Run(Response, frozen=True):
    """Run. `links`: paths of its parts. `queue`: place of a queued run; None for other runs, and in lists.

    A failed run can have a partial `result` beside its `error`. `usage`: of models, in all attempts together.
    """

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
    worked_ms: int | None = None
    start_at_ms: int | None = None
    fork_of: ForkOf | None = None
    queue: QueuePlace | None = None
    waiting: Waiting | None = None
    usage: ModelUsage | None = None
    model: str | None = None
    instructions: str | None = None
    tools: list[str] | None = None
    approvals: list[ApprovalRule] = []
    limits: Limits = Limits()
    output_schema: dict[str, Any] | None = None
    strict_plan: bool = False
    stream: bool = True
    continue_of: str | None = None
    webhook_url: str | None = None
    webhook_events: list[str] | None = None

    @property
    def ended(self) -> bool:
        """True if the run has succeeded, failed or been cancelled."""
        return self.status in TERMINAL


class Attempt(Response, frozen=True):
    """Claim of a run by a worker.

    `attempt` is its number since the last retry; waiting, message, drained, unable and unanswered claims do not
    count. `outcome`: a terminal status, `waiting`, `message` (one was unread), `drained`, `given_back` (to be tried
    again), `unable` (the worker lacked a program of the next step), `lease_expired` (the worker was lost),
    `worker_restarted` or `unanswered` (the reply to the claim was lost); None, like `ended_ms`, until the claim ends.
    """

    fence: int
    attempt: int
    worker: str
    started_ms: int
    ended_ms: int | None = None
    outcome: str | None = None


class Step(Response, frozen=True):
    """Step of a run's plan, or call of its agent; `index` counts from 0.

    `plan_step`: index of the step in the agent's plan that a call belongs to; None for a step of an explicit plan.
    `status` is `pending`, `running`, `succeeded`, `failed` or `cancelled`. `kept`: path of the complete step, if its
    `result` is too large for the list. None: unknown, or not reached.
    """

    index: int
    name: str
    tool: str
    status: str
    started_ms: int | None
    duration_ms: int | None
    result: dict[str, Any] | None
    kept: str | None
    error: RunError | None
    plan_step: int | None = None


class StepRecord(Response, frozen=True):
    """Completed step as it is stored; `started_ms` is None for steps of an earlier release."""

    tool: str
    duration_ms: int = 0
    result: dict[str, Any] = {}
    started_ms: int | None = None


class Problem(Response, frozen=True):
    """Body of an error response. `missing`: paths of the announced files that have not been uploaded.

    `open_requests`: ids of the open requests of a waiting run that refused an answer.
    """

    detail: str
    type: str = ""
    field: str | None = None
    run_status: str | None = None
    missing: list[str] = []
    open_requests: list[str] = []


class Event(Response, frozen=True, omit_defaults=True):
    """Event of a run's log. `seq` is 1, 2, 3 … without a gap; `ts` is ms since the epoch; `step` counts from 0."""

    seq: int
    ts: int
    type: str
    step: int | None = None
    data: dict[str, Any] = {}


class Gap(Response, frozen=True):
    """Deleted events of a log, from seq `first` to seq `last`."""

    first: int
    last: int


class Skipped(Response, frozen=True):
    """Part of a stream with filters: the events up to seq `last` were filtered out."""

    last: int


class End(Response, frozen=True):
    """End of a stream: the run has ended with event `last_seq`."""

    last_seq: int


class StreamToken(Response, frozen=True):
    """Token for a browser to read the log of one run until `expires_ms`. `href`: path of the stream with it."""

    token: str
    expires_ms: int
    href: str

    def __repr__(self) -> str:
        return f"StreamToken(expires_ms={self.expires_ms})"


class File(Response, frozen=True):
    """File in the workspace of a run."""

    path: str
    size_bytes: int
    modified_ms: int


class FileLink(Response, frozen=True):
    """Address from which anyone can fetch a file until `expires_ms`."""

    url: str
    expires_ms: int
    content_type: str
    size_bytes: int

    def __repr__(self) -> str:
        return f"FileLink(expires_ms={self.expires_ms})"


class UploadTarget(Response, frozen=True):
    """Request that stores the content of an announced file: send exactly these headers before `expires_ms`."""

    method: str
    url: str
    headers: dict[str, str]
    expires_ms: int

    def __repr__(self) -> str:
        return f"UploadTarget(expires_ms={self.expires_ms})"


class InputFile(Response, frozen=True):
    """File that a run begins with: uploaded (`size_bytes`, `sha256`), or copied from `source_path` of `from_run`."""

    path: str
    size_bytes: int | None = None
    sha256: str | None = None
    from_run: str | None = None
    source_path: str | None = None
    upload: UploadTarget | None = None


class Identity(Response, frozen=True):
    """User, and scopes of the user's token."""

    user: str
    scopes: list[str]


class QueueDepths(Response, frozen=True):
    """Number of runs in each part of the queue, of all users.

    `pending` counts wake tokens; it equals `ready` whenever no claim is under way. `unreadable` counts active runs that
    were set aside because their records are damaged. `workers`: processes that asked for work within five minutes.
    """

    pending: int
    ready: int
    delayed: int
    running: int
    dead: int
    unreadable: int = 0
    waiting: int = 0
    workers: int = 0
