"""Requests. The same types validate the requests and describe them in `/openapi.json`."""

from typing import Annotated

import msgspec

from infra.contract.runs import MAX_PLAN_STEPS, MAX_PROMPT_CHARS, PlanStep, RunSpec
from infra.contract.states import Status

MAX_SEQ = 2**53 - 1
MAX_EVENTS = 1000
MAX_INPUT_CHARS = 100_000
MAX_STREAM_TOKEN_S = 3600

Seq = Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQ)]
RunId = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
UserInput = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_INPUT_CHARS)]


class RequestModel(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Base of requests. Unknown fields are rejected by name."""


class Nothing(RequestModel, frozen=True):
    """Request without fields; its body may be left out."""


class CreateRun(RunSpec, frozen=True, kw_only=True):
    """Create a run from a prompt, an explicit plan, or both; `start` queues it immediately."""

    start: bool = True


class ForkRun(RequestModel, frozen=True):
    """New run that begins with the results of the first `from_step` steps of this one. `plan` replaces later steps."""

    from_step: Annotated[int, msgspec.Meta(ge=0, le=MAX_PLAN_STEPS)]
    plan: Annotated[list[PlanStep], msgspec.Meta(min_length=1, max_length=MAX_PLAN_STEPS)] | None = None
    prompt: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_PROMPT_CHARS)] | None = None
    start: bool = True


class ResumeRun(RequestModel, frozen=True):
    """Input that a waiting run asks for."""

    user_input: UserInput


class MintStreamToken(RequestModel, frozen=True):
    """Token for reading the log of one run, valid for `expires_s` seconds."""

    expires_s: Annotated[int, msgspec.Meta(ge=1, le=MAX_STREAM_TOKEN_S)] = 300


class ExecuteCreate(RunSpec, frozen=True, tag_field="action", tag="create"):
    """Record a run without starting it."""


class ExecuteStart(RequestModel, frozen=True, tag_field="action", tag="start"):
    """Queue a created run."""

    run_id: RunId


class ExecuteStop(RequestModel, frozen=True, tag_field="action", tag="stop"):
    """Cancel a run."""

    run_id: RunId


class ExecuteRetry(RequestModel, frozen=True, tag_field="action", tag="retry"):
    """Queue a failed or cancelled run again; completed steps are not repeated."""

    run_id: RunId


class ExecuteResume(RequestModel, frozen=True, tag_field="action", tag="resume"):
    """Give a waiting run its input."""

    run_id: RunId
    user_input: UserInput


Execute = ExecuteCreate | ExecuteStart | ExecuteStop | ExecuteRetry | ExecuteResume


class ListQuery(RequestModel, frozen=True):
    """Selection of the runs to list."""

    status: Annotated[Status | None, msgspec.Meta(description="Only runs of this status.")] = None
    error: (
        Annotated[str, msgspec.Meta(min_length=1, max_length=64, description="Only runs that failed with this code.")]
        | None
    ) = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=100)] = 20
    cursor: Annotated[str, msgspec.Meta(max_length=500)] | None = None


_Filter = Annotated[str, msgspec.Meta(max_length=1000)]


class LogFilters(RequestModel, frozen=True):
    """Events to return; each filter is a list of values with commas between them, and all filters must hold."""

    step: Annotated[_Filter | None, msgspec.Meta(description="Only events of these steps, counted from 0.")] = None
    stream: Annotated[_Filter | None, msgspec.Meta(description="Only output on these streams: stdout, stderr.")] = None
    type: Annotated[_Filter | None, msgspec.Meta(description="Only events of these types.")] = None
    tail: (
        Annotated[int, msgspec.Meta(ge=1, le=MAX_EVENTS, description="Begin with the last events, this many.")] | None
    ) = None


class LogQuery(LogFilters, frozen=True):
    """Part of a log to read. Only one of `after`, `before` and `tail` may be given."""

    after: Annotated[Seq, msgspec.Meta(description="Sequence number of the last event that the client has.")] = 0
    before: (
        Annotated[
            int, msgspec.Meta(ge=1, le=MAX_SEQ, description="Sequence number before which the events are wanted.")
        ]
        | None
    ) = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_EVENTS, description="Most events; not with `tail`.")] = 200


class StreamQuery(LogFilters, frozen=True):
    """Start of a stream. The header `Last-Event-ID` takes precedence over `lastEventId`, which does over
    `after` and `tail`."""

    after: Annotated[Seq, msgspec.Meta(description="Sequence number of the last event that the client has.")] = 0
    # The name is the one that event-source-polyfill uses, because it must not send the header to other origins.
    last_event_id: (
        Annotated[Seq, msgspec.Meta(description="As the header Last-Event-ID, for clients that cannot send it.")] | None
    ) = msgspec.field(default=None, name="lastEventId")


def spec_of(wanted: RunSpec) -> RunSpec:
    """Return the plain spec of a request that extends RunSpec with further fields."""
    return RunSpec(**{name: getattr(wanted, name) for name in RunSpec.__struct_fields__})
