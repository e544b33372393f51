"""What clients send. The same types validate and make up `/openapi.json`."""

from typing import Annotated

import msgspec

from infra.contract.runs import MAX_PLAN_STEPS, MAX_PROMPT_CHARS, PlanStep, RunSpec
from infra.contract.states import Status

MAX_SEQ = 2**53 - 1
MAX_INPUT_CHARS = 100_000
MAX_STREAM_TOKEN_S = 3600

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


class MintStreamToken(Request, frozen=True):
    """A token to read the log of one run with; it is good for `expires_s`."""

    expires_s: Annotated[int, msgspec.Meta(ge=1, le=MAX_STREAM_TOKEN_S)] = 300


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
    error: Annotated[str, msgspec.Meta(min_length=1, max_length=64, description="Only runs that failed so.")] | None = (
        None
    )
    limit: Annotated[int, msgspec.Meta(ge=1, le=100)] = 20
    cursor: Annotated[str, msgspec.Meta(max_length=500)] | None = None


class LogQuery(Request, frozen=True):
    """Which part of a log to read."""

    after: Annotated[Seq, msgspec.Meta(description="The last sequence number already known.")] = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 200


class StreamQuery(Request, frozen=True):
    """Where a stream begins; the header `Last-Event-ID` goes before it."""

    after: Annotated[Seq, msgspec.Meta(description="The last sequence number already known.")] = 0


def spec_of(wanted: RunSpec) -> RunSpec:
    """The plain spec of a request that has more to it than a spec."""
    return RunSpec(**{name: getattr(wanted, name) for name in RunSpec.__struct_fields__})
