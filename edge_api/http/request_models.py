"""Requests. The same types validate the requests and describe them in `/openapi.json`."""

from typing import Annotated, Any, Literal

import msgspec

from infra.contract.agent import Limits
from infra.contract.errors import InvalidInput
from infra.contract.requests import MAX_COMMENT_CHARS, MAX_INPUT_CHARS, MAX_MESSAGE_CHARS, MAX_REQUESTS, GivenAnswer
from infra.contract.runs import MAX_MS, MAX_PLAN_STEPS, MAX_PROMPT_CHARS, Metadata, PlanStep, RunFilter, RunSpec
from infra.contract.states import Status

MAX_SEQ = 2**53 - 1
MAX_EVENTS = 1000
MAX_STREAM_TOKEN_S = 3600
MAX_BATCH_RUNS = 100
MAX_WAIT_S = 25
"""Longest wait for a run. Proxies and API gateways commonly end a request after 29 s or more."""

Seq = Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQ)]
RunId = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
UserInput = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_INPUT_CHARS)]
MessageText = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_MESSAGE_CHARS)]
Comment = Annotated[str, msgspec.Meta(max_length=MAX_COMMENT_CHARS)]


class RequestModel(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Base of requests. Unknown fields are rejected by name."""


class Nothing(RequestModel, frozen=True):
    """Request without fields; its body may be left out."""


class CreateRun(RunSpec, frozen=True, kw_only=True):
    """Create a run from a prompt, an explicit plan, or both; `start` queues it immediately."""

    start: bool = True


class BatchRun(CreateRun, frozen=True, kw_only=True):
    """Run of a batch. `idempotency_key` has the meaning of the header Idempotency-Key of a single creation."""

    idempotency_key: Annotated[str, msgspec.Meta(min_length=1, max_length=255)] | None = None


class CreateBatch(RequestModel, frozen=True):
    """Runs to create, each independently of the others."""

    runs: Annotated[list[BatchRun], msgspec.Meta(min_length=1, max_length=MAX_BATCH_RUNS)]


class UncheckedBatch(RequestModel, frozen=True):
    """Batch whose runs are yet to be checked one by one: a bad one must not reject the others."""

    runs: Annotated[list[Any], msgspec.Meta(min_length=1, max_length=MAX_BATCH_RUNS)]


class ForkRun(RequestModel, frozen=True):
    """New run that begins with the results of the first `from_step` steps of this one. `plan` replaces later steps."""

    from_step: Annotated[int, msgspec.Meta(ge=0, le=MAX_PLAN_STEPS)]
    plan: Annotated[list[PlanStep], msgspec.Meta(min_length=1, max_length=MAX_PLAN_STEPS)] | None = None
    prompt: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_PROMPT_CHARS)] | None = None
    start: bool = True


class RetryRun(RequestModel, frozen=True):
    """Limits of a run that a model plans, from its retry on; the others stay as they are."""

    limits: Limits | None = None


class AnnounceInput(RequestModel, frozen=True):
    """Input file of a run: content to upload (`size_bytes`, `sha256`), or the file `path` of the run `from_run`.

    `md5` is needed only if the object store of the API checks uploads by MD5.
    """

    size_bytes: Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQ)] | None = None
    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z", description="64 lower-case hex digits.")] | None = (
        None
    )
    md5: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z", description="32 lower-case hex digits.")] | None = None
    from_run: RunId | None = None
    path: Annotated[str, msgspec.Meta(min_length=1, max_length=512)] | None = None

    def check(self) -> None:
        """Raise InvalidInput unless the fields describe one of the two kinds of input."""
        uploaded = [self.size_bytes is not None, self.sha256 is not None, self.md5 is not None]
        copied = [self.from_run is not None, self.path is not None]
        if not (all(uploaded[:2]) and not any(copied)) and not (all(copied) and not any(uploaded)):
            raise InvalidInput("give 'size_bytes' and 'sha256' of a file to upload, or 'from_run' and 'path'", "$")


class RequestAnswer(RequestModel, frozen=True):
    """Answer to one request: `input` to a question; `approve`, perhaps with a `comment`, to an approval."""

    input: UserInput | None = None
    approve: bool | None = None
    comment: Comment | None = None


class AnswerFields(RequestModel, frozen=True):
    """Answers to requests of a waiting run, by request id.

    While exactly one request is open, `user_input` (to a question) or `approve` (to an approval) is enough.
    """

    answers: (
        Annotated[
            dict[Annotated[str, msgspec.Meta(min_length=1, max_length=64)], RequestAnswer],
            msgspec.Meta(min_length=1, max_length=MAX_REQUESTS),
        ]
        | None
    ) = None
    user_input: UserInput | None = None
    approve: bool | None = None
    comment: Comment | None = None

    def given(self) -> list[GivenAnswer]:
        """Return the answers, in their order."""
        if self.answers is None:
            return [GivenAnswer(input=self.user_input, approve=self.approve, comment=self.comment)]
        return [
            GivenAnswer(input=each.input, approve=each.approve, comment=each.comment) for each in self.answers.values()
        ]

    def check(self) -> None:
        """Raise InvalidInput unless there is one form of answer, and each answer is a text, or yes or no."""
        if self.answers is not None and (self.user_input, self.approve, self.comment) != (None, None, None):
            raise InvalidInput("give 'answers' without 'user_input', 'approve' and 'comment'", "$.answers")
        fields = "'answers', 'user_input' or 'approve'" if self.answers is None else "'input' or 'approve'"
        for name, answer in zip(self.answers or [""], self.given(), strict=True):
            at = f"$.answers.{name}" if name else "$"
            if (answer.input is None) == (answer.approve is None):
                raise InvalidInput(f"give one of {fields}", at)
            if answer.comment is not None and answer.approve is None:
                raise InvalidInput("a 'comment' goes with 'approve'; a text is complete without one", f"{at}.comment")
        if sum(len(answer.input or "") for answer in self.given()) > MAX_INPUT_CHARS:
            raise InvalidInput(f"the texts have more than {MAX_INPUT_CHARS} characters together", "$.answers")


class SendMessage(RequestModel, frozen=True):
    """Message to a run that has not ended."""

    text: MessageText


class ResumeRun(AnswerFields, frozen=True):
    """Answers to requests of a waiting run; see its fields."""


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


class ExecuteRetry(RetryRun, frozen=True, kw_only=True, tag_field="action", tag="retry"):
    """Queue a failed or cancelled run again; completed steps are not repeated."""

    run_id: RunId


class ExecuteResume(AnswerFields, frozen=True, kw_only=True, tag_field="action", tag="resume"):
    """Answer requests of a waiting run."""

    run_id: RunId


class ExecuteMessage(RequestModel, frozen=True, tag_field="action", tag="message"):
    """Send a message to a run that has not ended."""

    run_id: RunId
    text: MessageText


class ExecuteInterrupt(RequestModel, frozen=True, tag_field="action", tag="interrupt"):
    """Stop the work on a run, and let it wait for people."""

    run_id: RunId


Execute = ExecuteCreate | ExecuteStart | ExecuteStop | ExecuteRetry | ExecuteResume | ExecuteMessage | ExecuteInterrupt


class ListQuery(RequestModel, frozen=True):
    """Selection of the runs to list."""

    status: Annotated[
        list[Status],
        msgspec.Meta(max_length=len(Status), description="Only runs of these statuses, separated by commas."),
    ] = []
    error: (
        Annotated[str, msgspec.Meta(min_length=1, max_length=64, description="Only runs that failed with this code.")]
        | None
    ) = None
    created_after: (
        Annotated[int, msgspec.Meta(ge=0, le=MAX_MS, description="Only runs created after this time (ms).")] | None
    ) = None
    created_before: (
        Annotated[int, msgspec.Meta(ge=0, le=MAX_MS, description="Only runs created before this time (ms).")] | None
    ) = None
    metadata: Metadata = {}
    limit: Annotated[int, msgspec.Meta(ge=1, le=100)] = 20
    cursor: Annotated[str, msgspec.Meta(max_length=500)] | None = None

    @property
    def wanted(self) -> RunFilter:
        """Conditions that a listed run fulfils."""
        return RunFilter(
            statuses=self.status,
            error=self.error,
            created_after=self.created_after,
            created_before=self.created_before,
            metadata=self.metadata,
        )


class RunQuery(RequestModel, frozen=True):
    """Time to wait for a run."""

    wait: (
        Annotated[
            int,
            msgspec.Meta(
                ge=1,
                le=MAX_WAIT_S,
                description="Seconds to wait until the run has ended or waits for a person.",
            ),
        ]
        | None
    ) = None


class FileQuery(RequestModel, frozen=True):
    """Disposition of a file: what a browser that opens its URL does with it."""

    disposition: Annotated[
        Literal["attachment", "inline"],
        msgspec.Meta(description="`inline`: a browser shows the file; only for types that cannot contain programs."),
    ] = "attachment"


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
    before: Annotated[int, msgspec.Meta(ge=1, le=MAX_SEQ, description="Only events before this number.")] | None = None
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
