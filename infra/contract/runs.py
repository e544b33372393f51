"""Runs: the request of a user, the record in Redis, and the parts of the record that lists and attempts show."""

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from infra.contract.agent import AgentOptions, Limits
from infra.contract.errors import InvalidInput
from infra.contract.requests import StoredAnswer, Waiting
from infra.contract.states import Status
from infra.contract.tools import parse_args
from infra.contract.usage import RunUsage
from infra.contract.webhooks import WebhookEvents, WebhookUrl

RECORD_VERSION = 2
"""Version of the records that this release writes. Workers leave runs with a newer version to newer workers."""

MAX_PROMPT_CHARS = 100_000
MAX_PLAN_STEPS = 200
MAX_METADATA_KEYS = 50
MAX_ATTEMPTS = 20
MAX_UNABLE = 5
"""Number of times in a row that workers may give a run back because they are unable to execute its next step."""
MAX_TIMEOUT_S = 24 * 3600.0
MAX_DELAY_S = 30 * 24 * 3600.0
MAX_MS = 2**53 - 1
TITLE_CHARS = 120
MAX_ERROR_CHARS = 5000


class PlanStep(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True, omit_defaults=True):
    """One tool call of an explicit plan."""

    tool: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    args: dict[str, Any] = {}
    timeout_s: (
        Annotated[float, msgspec.Meta(gt=0, le=MAX_TIMEOUT_S, description="Seconds before the step fails.")] | None
    ) = None
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] | None = None


Metadata = Annotated[
    dict[
        Annotated[str, msgspec.Meta(min_length=1, max_length=64)],
        Annotated[str, msgspec.Meta(max_length=512)],
    ],
    msgspec.Meta(max_length=MAX_METADATA_KEYS),
]


class ForkOf(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Source of a fork: another run of the same user. The new run starts with its first `from_step` completed steps."""

    run_id: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    from_step: Annotated[int, msgspec.Meta(ge=0, le=MAX_PLAN_STEPS, description="Index of the first step to execute.")]


class RunSpec(AgentOptions, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Request of a user: a prompt, an explicit plan, or both. The options of an agent need a prompt without a plan."""

    prompt: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_PROMPT_CHARS)] | None = None
    plan: Annotated[list[PlanStep], msgspec.Meta(min_length=1, max_length=MAX_PLAN_STEPS)] | None = None
    priority: Annotated[int, msgspec.Meta(ge=0, le=8, description="0 is last, 8 is first.")] = 4
    max_attempts: Annotated[int, msgspec.Meta(ge=1, le=MAX_ATTEMPTS)] = 3
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=MAX_TIMEOUT_S)] = 3600.0
    metadata: Metadata = msgspec.field(default_factory=dict)
    delay_s: Annotated[
        float, msgspec.Meta(ge=0, le=MAX_DELAY_S, description="Seconds from the start until a worker may begin.")
    ] = 0.0
    start_at_ms: (
        Annotated[int, msgspec.Meta(ge=0, le=MAX_MS, description="Earliest start, in ms since the epoch.")] | None
    ) = None
    queue_ttl_s: (
        Annotated[
            float,
            msgspec.Meta(gt=0, le=MAX_DELAY_S, description="The run fails if it waits longer for a worker."),
        ]
        | None
    ) = None
    fork_of: ForkOf | None = None
    webhook_url: WebhookUrl | None = None
    webhook_events: WebhookEvents | None = None

    @property
    def source(self) -> str | None:
        """Id of the run with whose content this one begins."""
        return self.fork_of.run_id if self.fork_of else self.continue_of

    def check(self) -> None:
        """Raise InvalidInput for rules that the types cannot express, or that only decoding a body checks."""
        if self.delay_s and self.start_at_ms is not None:
            raise InvalidInput("give 'delay_s' or 'start_at_ms', not both", "$.start_at_ms")
        if self.prompt is None and self.plan is None:
            raise InvalidInput("a run needs a 'prompt', a 'plan', or both", "$")
        if self.prompt is not None and not self.prompt.strip():
            raise InvalidInput("the prompt is empty", "$.prompt")
        if self.plan is not None and not 1 <= len(self.plan) <= MAX_PLAN_STEPS:
            raise InvalidInput(f"the plan has {len(self.plan)} steps; allowed are 1 to {MAX_PLAN_STEPS}", "$.plan")
        if self.fork_of is not None and self.continue_of is not None:
            raise InvalidInput("give 'fork_of' or 'continue_of', not both", "$.continue_of")
        if self.webhook_events is not None and self.webhook_url is None:
            raise InvalidInput("'webhook_events' needs a 'webhook_url'", "$.webhook_events")
        self.check_options(has_agent=self.plan is None)
        for index, step in enumerate(self.plan or ()):
            parse_args(step.tool, step.args, at=f"$.plan[{index}]")


class RunError(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Error of a failed run. `code` is stable, `message` is for people, `step` is the index of the failed step.

    The record keeps the first MAX_ERROR_CHARS characters of the message.
    """

    code: str
    message: str
    step: int | None = None


class Brief(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Short form of a spec for lists, stored beside the spec because prompts and plans can be large.

    `title` is the first line of the prompt, or the names of the plan's steps, truncated to TITLE_CHARS; `steps` is the
    number of steps in the plan.
    """

    title: str
    steps: int | None = None
    priority: int = 4
    metadata: dict[str, str] = {}

    @classmethod
    def of(cls, spec: RunSpec) -> "Brief":
        """Return the short form of a spec."""
        if spec.prompt is not None:
            title = spec.prompt.strip().partition("\n")[0].strip()
        else:
            title = ", ".join(step.name or step.tool for step in spec.plan or ())
        if len(title) > TITLE_CHARS:
            title = f"{title[: TITLE_CHARS - 1]}…"
        steps = len(spec.plan) if spec.plan else None
        return cls(title=title, steps=steps, priority=spec.priority, metadata=spec.metadata)


class RunHead(msgspec.Struct, frozen=True, kw_only=True):
    """Run without its large fields. Times are ms since the epoch by Redis's clock; None until they are known.

    `seq` is the sequence number of the last event in the log. `worked_ms`: sum of the durations of all attempts that
    have ended, without the time between them; None before the first has ended. `waiting` is None unless the run waits.
    `usage`: of models, in all attempts together; None if there was none.
    """

    id: str
    user: str
    status: Status
    brief: Brief
    attempt: int
    seq: int
    cancel: bool
    created_ms: int
    queued_ms: int | None
    started_ms: int | None
    finished_ms: int | None
    worked_ms: int | None = None
    error: RunError | None
    deleting: bool
    waiting: Waiting | None = None
    usage: RunUsage | None = None


class RunRecord(RunHead, frozen=True, kw_only=True):
    """Run as stored; `fence` grows with each claim.

    `unable`: number of workers in a row that were unable to execute the next step; a result in the journal resets it.
    `answers`: by the ids of the requests with which the run waited last. `interrupt`: the run is to wait for people.
    `limits`: those of the last retry that gave some, in place of the limits of the spec. A failed run can have a
    partial `result` beside its error. `traceparent`: trace of the request that created the run (W3C Trace Context).
    """

    spec: RunSpec
    fence: int
    worker: str | None
    result: dict[str, Any] | None
    answers: dict[str, StoredAnswer] = {}
    interrupt: bool = False
    unable: int = 0
    limits: Limits | None = None
    traceparent: str | None = None

    @property
    def first_wait_ms(self) -> int:
        """Time from when the run was ready for its first claim until that claim; 0 before it, or if it is unknown."""
        if self.queued_ms is None or self.started_ms is None:
            return 0
        due_ms = self.spec.start_at_ms or self.queued_ms + int((self.spec.delay_s or 0) * 1000)
        return max(0, self.started_ms - max(self.queued_ms, due_ms))


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """Claim of a run. `attempt` is its number since the last retry; waiting, message, drained, unable and unanswered
    ones do not count.

    `outcome`: a terminal status, `waiting`, `message` (one came that had not been read), `drained`, `given_back` (to be
    tried again later), `unable` (the worker lacked a program that the next step needs), `lease_expired` (the worker was
    lost), `worker_restarted` (the worker's process ended, and another one took its place) or `unanswered` (the reply to
    the claim was lost); None, like `ended_ms`, until the claim ends.
    """

    fence: int
    attempt: int
    worker: str
    started_ms: int
    ended_ms: int | None = None
    outcome: str | None = None


class RunFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Selection of a user's runs: every condition must hold. `statuses`: one of these; empty: any.

    `error`: failed with this code. `created_after`, `created_before`: exclusive, in ms since the epoch. `metadata`: has
    each of these pairs.
    """

    statuses: Sequence[Status] = ()
    error: str | None = None
    created_after: int | None = None
    created_before: int | None = None
    metadata: dict[str, str] = {}

    @property
    def reads_records(self) -> bool:
        """True if the index alone, which is ordered by creation, cannot answer."""
        return bool(self.statuses or self.error is not None or self.metadata)

    def matches(self, run: RunHead) -> bool:
        """Return whether the record of a run, regardless of its creation, fulfils the conditions."""
        return (
            (not self.statuses or run.status in self.statuses)
            and (self.error is None or (run.error is not None and run.error.code == self.error))
            and self.metadata.items() <= run.brief.metadata.items()
        )


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Page of a user's runs, newest first. `cursor` (creation in ms, run id) is the start of the next page, if any.

    `unreadable`: ids of the runs in this part of the list whose records are damaged, or of a newer release. `complete`
    is False if the page ended at the bound of its search, so that more runs of this part may match.
    """

    runs: list[RunHead]
    cursor: tuple[int, str] | None
    unreadable: list[str] = []
    complete: bool = True
