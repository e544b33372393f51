"""What requests and responses look like. The same types validate, answer, and make up `/openapi.json`."""

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from infra.contract.models import (
    MAX_PLAN_STEPS,
    MAX_PROMPT_CHARS,
    Attempt,
    Event,
    ForkOf,
    PlanStep,
    RunError,
    RunHead,
    RunRecord,
    RunSpec,
)
from infra.contract.states import Status

MAX_SEQ = 2**53 - 1
MAX_INPUT_CHARS = 100_000

Seq = Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQ)]
RunId = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
UserInput = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_INPUT_CHARS)]


class Request(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Base of requests: unknown fields are refused by name."""


class Nothing(Request, frozen=True):
    """A request without fields; its body may be left out."""


class CreateRun(RunSpec, frozen=True, kw_only=True):
    """Create a run from a prompt, an explicit plan, or both; `start` queues it at once."""

    start: bool = True


class ForkRun(Request, frozen=True):
    """A new run with the first `from_step` steps of this one, as it did them. `plan`: other steps from there on."""

    from_step: Annotated[int, msgspec.Meta(ge=0, le=MAX_PLAN_STEPS)]
    plan: Annotated[list[PlanStep], msgspec.Meta(min_length=1, max_length=MAX_PLAN_STEPS)] | None = None
    prompt: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_PROMPT_CHARS)] | None = None
    start: bool = True


class ResumeRun(Request, frozen=True):
    """The input that a waiting run asks for."""

    user_input: UserInput


class ExecuteCreate(RunSpec, frozen=True, tag_field="action", tag="create"):
    """Record a run without starting it."""


class ExecuteStart(Request, frozen=True, tag_field="action", tag="start"):
    """Queue a created run."""

    run_id: RunId


class ExecuteStop(Request, frozen=True, tag_field="action", tag="stop"):
    """Cancel a run."""

    run_id: RunId


class ExecuteRetry(Request, frozen=True, tag_field="action", tag="retry"):
    """Queue a failed or cancelled run again; completed steps are not repeated."""

    run_id: RunId


class ExecuteResume(Request, frozen=True, tag_field="action", tag="resume"):
    """Give a waiting run its input."""

    run_id: RunId
    user_input: UserInput


Execute = ExecuteCreate | ExecuteStart | ExecuteStop | ExecuteRetry | ExecuteResume


class ListQuery(Request, frozen=True):
    """Which runs to list."""

    status: Annotated[Status | None, msgspec.Meta(description="Only runs of this status.")] = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=100)] = 20
    cursor: Annotated[str, msgspec.Meta(max_length=500)] | None = None


class LogQuery(Request, frozen=True):
    """Which part of a log to read."""

    after: Annotated[Seq, msgspec.Meta(description="The last sequence number already known.")] = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 200


class StreamQuery(Request, frozen=True):
    """Where a stream begins; the header `Last-Event-ID` goes before it."""

    after: Annotated[Seq, msgspec.Meta(description="The last sequence number already known.")] = 0


class Links(msgspec.Struct, frozen=True, kw_only=True):
    """Where to go from a run."""

    self: str
    logs: str
    stream: str
    files: str


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A run. Times are ms since the epoch; `last_seq` is the sequence number of the last event of its log."""

    run_id: str
    status: Status
    prompt: str | None
    plan: list[PlanStep] | None
    priority: int
    max_attempts: int
    timeout_s: float
    metadata: dict[str, str]
    fork_of: ForkOf | None
    delay_s: float
    start_at_ms: int | None
    queue_ttl_s: float | None
    attempt: int
    cancel_requested: bool
    last_seq: int
    created_ms: int
    queued_ms: int | None
    started_ms: int | None
    finished_ms: int | None
    result: dict[str, Any] | None
    error: RunError | None
    links: Links

    @classmethod
    def of(cls, record: RunRecord) -> "Run":
        """What its owner sees of a record."""
        spec, base = record.spec, f"/agent/runs/{record.id}"
        logs = f"/agent/logs/{record.id}"
        return cls(
            run_id=record.id,
            status=record.status,
            prompt=spec.prompt,
            plan=spec.plan,
            priority=spec.priority,
            max_attempts=spec.max_attempts,
            timeout_s=spec.timeout_s,
            metadata=spec.metadata,
            fork_of=spec.fork_of,
            delay_s=spec.delay_s,
            start_at_ms=spec.start_at_ms,
            queue_ttl_s=spec.queue_ttl_s,
            attempt=record.attempt,
            cancel_requested=record.cancel,
            last_seq=record.seq,
            created_ms=record.created_ms,
            queued_ms=record.queued_ms,
            started_ms=record.started_ms,
            finished_ms=record.finished_ms,
            result=record.result,
            error=record.error,
            links=Links(self=base, logs=logs, stream=f"{logs}/stream", files=f"{base}/files"),
        )


class RunSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A run in a list: without its plan and result, which can be large. `steps` is None without an explicit plan."""

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
    error: RunError | None

    @classmethod
    def of(cls, run: RunHead) -> "RunSummary":
        """What its owner sees of a run in a list."""
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
            error=run.error,
        )


class RunList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of runs, newest first. `next_cursor` asks for the next page; None at the end."""

    runs: list[RunSummary]
    next_cursor: str | None


class RunState(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run stands after a transition. A running run that is cancelled stays `running` until it has stopped."""

    run_id: str
    status: Status
    cancel_requested: bool


class AttemptList(msgspec.Struct, frozen=True, kw_only=True):
    """Who worked on a run, and when; oldest first."""

    attempts: list[Attempt]


class LogEvent(Event, frozen=True, kw_only=True, omit_defaults=False):
    """One event of a run's log: `seq` is 1, 2, 3 … without a hole, `ts` is ms since the epoch, `step` counts from 0."""

    @classmethod
    def of(cls, event: Event) -> "LogEvent":
        """The event with all its fields, also those that have no value."""
        return cls(seq=event.seq, ts=event.ts, type=event.type, step=event.step, data=event.data)


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """Events that are no longer there, from seq `first` to seq `last`."""

    first: int
    last: int


class LogPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of a log. `next_after` asks for the next page; `done`: the run has ended and its log ends here.

    `gap` stands only where events before the first one of this page are no longer there.
    """

    events: list[LogEvent]
    last_seq: int
    next_after: int
    done: bool
    gap: Gap | UnsetType = UNSET


class StreamEnd(msgspec.Struct, frozen=True, kw_only=True):
    """The data of a stream's `end` event."""

    status: Status
    last_seq: int


class File(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a run's workspace; `href` redirects to its content."""

    path: str
    size_bytes: int
    modified_ms: int
    href: str


class FileList(msgspec.Struct, frozen=True, kw_only=True):
    """The files of a run's workspace, sorted by path."""

    files: list[File]


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """That the process is up, or ready."""

    status: str


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """An error (RFC 9457). `field` is the path of the bad value; `run_status` is what refused a transition."""

    type: str
    title: str
    status: int
    detail: str
    field: str | UnsetType = UNSET
    run_status: str | UnsetType = UNSET


def spec_of(wanted: RunSpec) -> RunSpec:
    """The plain spec of a request that has more to it than a spec."""
    return RunSpec(**{name: getattr(wanted, name) for name in RunSpec.__struct_fields__})
