"""Responses. The same types encode the responses and describe them in `/openapi.json`."""

from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from edge_api.http.usage_models import ModelUsage
from infra.contract.agent import ApprovalRule, Limits
from infra.contract.log import Event
from infra.contract.queue import QueuePlace
from infra.contract.requests import Waiting
from infra.contract.runs import Attempt, ForkOf, PlanStep, RunError, RunHead, RunRecord, RunSpec
from infra.contract.states import Status
from infra.contract.webhooks import WebhookEvent

StepStatus: TypeAlias = Literal["pending", "running", "succeeded", "failed", "cancelled"]


class Links(msgspec.Struct, frozen=True, kw_only=True):
    """Paths of a run's resources."""

    self: str
    logs: str
    stream: str
    files: str


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A run. Times are ms since the epoch; `last_seq` is the sequence number of the last event of its log.

    `queue` is the reason why a queued run has not begun; null for other runs, and in answers to other requests.
    `waiting`: open requests of a waiting run, and since when it waits; null for other runs. `usage`: of language models
    in all attempts together; null if there was none. A failed run can have a partial `result` beside its `error`.
    """

    run_id: str
    status: Status
    prompt: str | None
    plan: list[PlanStep] | None
    model: str | None
    instructions: str | None
    tools: list[str] | None
    approvals: list[ApprovalRule]
    limits: Limits
    output_schema: dict[str, Any] | None
    strict_plan: bool
    stream: bool
    continue_of: str | None
    priority: int
    max_attempts: int
    timeout_s: float
    metadata: dict[str, str]
    fork_of: ForkOf | None
    delay_s: float
    start_at_ms: int | None
    queue_ttl_s: float | None
    webhook_url: str | None
    webhook_events: list[WebhookEvent] | None
    attempt: int
    cancel_requested: bool
    last_seq: int
    created_ms: int
    queued_ms: int | None
    started_ms: int | None
    finished_ms: int | None
    worked_ms: int | None
    result: dict[str, Any] | None
    error: RunError | None
    waiting: Waiting | None
    usage: ModelUsage | None
    queue: QueuePlace | None
    links: Links

    @classmethod
    def of(cls, record: RunRecord, place: QueuePlace | None = None) -> "Run":
        """Return the parts of a record that its owner may see."""
        base, logs = f"/agent/runs/{record.id}", f"/agent/logs/{record.id}"
        return cls(
            **{name: getattr(record.spec, name) for name in _OF_SPEC} | {"limits": record.limits or record.spec.limits},
            run_id=record.id,
            status=record.status,
            attempt=record.attempt,
            cancel_requested=record.cancel,
            last_seq=record.seq,
            created_ms=record.created_ms,
            queued_ms=record.queued_ms,
            started_ms=record.started_ms,
            finished_ms=record.finished_ms,
            worked_ms=record.worked_ms,
            result=record.result,
            error=record.error,
            waiting=record.waiting,
            usage=ModelUsage.of(record.usage) if record.usage else None,
            queue=place,
            links=Links(self=base, logs=logs, stream=f"{logs}/stream", files=f"{base}/files"),
        )


_OF_SPEC = [name for name in Run.__struct_fields__ if name in RunSpec.__struct_fields__]


class RunSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A run in a list, without its plan and result, which can be large. `steps` is null without an explicit plan.

    `waiting`: open requests of a waiting run; null for other runs. `usage`: null without any.
    """

    run_id: str
    status: Status
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
    worked_ms: int | None
    error: RunError | None
    waiting: Waiting | None
    usage: ModelUsage | None

    @classmethod
    def of(cls, run: RunHead) -> "RunSummary":
        """Return the parts of a listed run that its owner may see."""
        return cls(
            run_id=run.id,
            status=run.status,
            title=run.brief.title,
            steps=run.brief.steps,
            priority=run.brief.priority,
            metadata=run.brief.metadata,
            attempt=run.attempt,
            cancel_requested=run.cancel,
            last_seq=run.seq,
            created_ms=run.created_ms,
            queued_ms=run.queued_ms,
            started_ms=run.started_ms,
            finished_ms=run.finished_ms,
            worked_ms=run.worked_ms,
            error=run.error,
            waiting=run.waiting,
            usage=ModelUsage.of(run.usage) if run.usage else None,
        )


class RunList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of runs, newest first. `next_cursor` requests the next page; null at the end.

    `complete` is false if the page ended before `limit` because it had looked at as many runs as a page may: more runs
    can follow. `unreadable`: ids of runs in this part of the list whose records are damaged, or were written by a newer
    release.
    """

    runs: list[RunSummary]
    next_cursor: str | None
    complete: bool
    unreadable: list[str] | UnsetType = UNSET


class RunState(msgspec.Struct, frozen=True, kw_only=True):
    """Status of a run after an action. A running run that is cancelled stays `running` until it has stopped."""

    run_id: str
    status: Status
    cancel_requested: bool


class AttemptList(msgspec.Struct, frozen=True, kw_only=True):
    """Attempts of a run: the workers that claimed it, and when; oldest first."""

    attempts: list[Attempt]


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """Step of a run's plan, or call of its agent; `index` counts from 0. Null: unknown, or not reached.

    `plan_step`: index of the step in the agent's plan that a call belongs to; null for a step of an explicit plan.

    `kept`: path of the stored step, if its `result` is too large for this list. `error`: why the step failed, or why
    its stored result cannot be shown.
    """

    index: int
    name: str
    tool: str
    plan_step: int | None
    status: StepStatus
    started_ms: int | None
    duration_ms: int | None
    result: dict[str, Any] | None
    kept: str | None
    error: RunError | None


class StepList(msgspec.Struct, frozen=True, kw_only=True):
    """The steps of a run's plan, or the calls of its agent, in order."""

    run_id: str
    steps: list[Step]


class LogEvent(Event, frozen=True, kw_only=True, omit_defaults=False):
    """One event of a run's log: `seq` is 1, 2, 3 … without a gap, `ts` is ms since the epoch, `step` counts from 0."""

    @classmethod
    def of(cls, event: Event) -> "LogEvent":
        """Return the event with all fields, also those without a value."""
        return cls(seq=event.seq, ts=event.ts, type=event.type, step=event.step, data=event.data)


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """Events that no longer exist, from seq `first` to seq `last`."""

    first: int
    last: int


class LogPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of a log. `next_after` requests the next page; `done`: the run has ended and its log ends here.

    `gap` is present only if events before the first event of this page no longer exist. Pages that are read backwards
    (`tail`, `before`) have `first_seq`, the number of the first event, null without events, and `prev_before`, which
    requests the page before this one and is null at the beginning of the log; their `gap` follows the last event.
    """

    events: list[LogEvent]
    last_seq: int
    next_after: int
    done: bool
    gap: Gap | UnsetType = UNSET
    first_seq: int | UnsetType | None = UNSET
    prev_before: int | UnsetType | None = UNSET


class Skipped(msgspec.Struct, frozen=True, kw_only=True):
    """The data of a stream's `skipped` event: the filters of the request exclude all events up to seq `last`."""

    last: int


class StreamEnd(msgspec.Struct, frozen=True, kw_only=True):
    """The data of a stream's `end` event."""

    status: Status
    last_seq: int


class StreamToken(msgspec.Struct, frozen=True, kw_only=True):
    """Token for reading the log of one run until `expires_ms`; `href` is the path of its stream with the token."""

    token: str
    expires_ms: int
    href: str


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """An error (RFC 9457). `field`: path of the bad value; `run_status`: status of a run that rejects an action;
    `missing`: paths of input files that are not uploaded; `open_requests`: ids of the requests that can be answered.
    """

    type: str
    title: str
    status: int
    detail: str
    field: str | UnsetType = UNSET
    run_status: str | UnsetType = UNSET
    missing: list[str] | UnsetType = UNSET
    open_requests: list[str] | UnsetType = UNSET


class BatchResult(msgspec.Struct, frozen=True, kw_only=True):
    """Result of one run of a batch: `run` with status 201 or 200, as in a single creation, or `problem`.

    `run.result` is null, also for a run that has ended since: a hundred results could exceed the size of an answer.
    """

    status: int
    run: Run | UnsetType = UNSET
    problem: Problem | UnsetType = UNSET


class BatchResults(msgspec.Struct, frozen=True, kw_only=True):
    """Results of a batch, in the order of its runs."""

    results: list[BatchResult]
