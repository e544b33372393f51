"""Events of a run as a whole: `run.*`."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

from infra.contract.events.base import Truncated
from infra.contract.log import TERMINAL_EVENT

RunEnd: TypeAlias = Literal["succeeded", "failed", "cancelled"]
"""Terminal statuses."""

Decision: TypeAlias = Literal["answered", "approved", "denied", "expired"]
"""Outcomes of a request."""

Worker = Annotated[str, Meta(description="The worker's name.")]
AttemptNumber = Annotated[int, Meta(description="Number of the attempt, counted from 1 since the last retry.")]
Fence = Annotated[int, Meta(description="Number of the claim; it grows with each claim.")]
RunId = Annotated[str, Meta(description="Id of the source run.")]


class RunStarted(Truncated, frozen=True, kw_only=True):
    """A worker has started the run."""

    TYPE = "run.started"

    worker: Worker
    attempt: AttemptNumber
    fence: Fence


class RunResumed(Truncated, frozen=True, kw_only=True):
    """A worker has resumed the run at the first step that is not completed."""

    TYPE = "run.resumed"

    worker: Worker
    attempt: AttemptNumber
    fence: Fence


class RunRequeued(Truncated, frozen=True, kw_only=True):
    """The run is queued again: its worker released it, or was lost."""

    TYPE = "run.requeued"

    reason: Annotated[
        str,
        Meta(
            description="`lease_expired` (the worker was lost), `worker_restarted` (its process ended and was "
            "replaced), `unanswered` (its claim's reply was lost), `drained`, `files_unavailable`, `worker_short` (its "
            "host lacked disk space, open files, processes or memory), `unable` (its host lacks a program that the "
            "next step needs), `message` (it has got a message that it has not read), `model_busy` (the model asks for "
            "a longer pause), `model_unavailable` (no model gave a whole reply)."
        ),
    ]
    delay_ms: Annotated[int, Meta(description="Delay in ms before the run is ready.")] | UnsetType = UNSET
    worker: Annotated[str, Meta(description="Name of the lost worker.")] | UnsetType = UNSET
    attempt: AttemptNumber | UnsetType = UNSET
    message: Annotated[str, Meta(description="What the host lacks, or the reason of the model.")] | UnsetType = UNSET


class RunRetried(Truncated, frozen=True, kw_only=True):
    """A user has retried the run, which had ended; the same log continues."""

    TYPE = "run.retried"

    after: Annotated[Literal["failed", "cancelled"], Meta(description="Status in which the run had ended.")]


class RunForked(Truncated, frozen=True, kw_only=True):
    """The run has taken over the first steps of another run, with their results and files."""

    TYPE = "run.forked"

    run_id: RunId
    from_step: Annotated[int, Meta(description="Index of the first step to execute, counted from 0.")]


class RunContinued(Truncated, frozen=True, kw_only=True):
    """The run has taken over the files and the conversation of another run."""

    TYPE = "run.continued"

    run_id: RunId


class RunWaiting(Truncated, frozen=True, kw_only=True):
    """The run waits for people; it continues once each request is answered or denied by its expiry."""

    TYPE = "run.waiting"
    MAX_TEXT_CHARS = 8000

    question: Annotated[str, Meta(description="Question of the first request, truncated to 8000 characters.")]
    requests: Annotated[
        Sequence[dict[str, Any] | str],
        Meta(
            description="Open requests: each has `id`, `kind` (`question` or `approval`), `question`, `expires_ms`, "
            "`on_expiry` (`deny` or `fail`), and perhaps `tool`, `args`, `choices` and `truncated`."
        ),
    ]


class RunInput(Truncated, frozen=True, kw_only=True):
    """A request of the waiting run has got its answer, or has expired."""

    TYPE = "run.input"
    MAX_TEXT_CHARS = 8000

    decision: Annotated[
        Decision, Meta(description="`answered`: a question; `approved`, `denied`: an approval; `expired`: no answer.")
    ]
    request: Annotated[str, Meta(description="Id of the request.")]
    by: Annotated[str, Meta(description="User who answered.")] | UnsetType = UNSET
    input: (
        Annotated[
            str,
            Meta(description="Answer to a question, truncated to 8000 characters; the worker receives it complete."),
        ]
        | UnsetType
    ) = UNSET
    comment: Annotated[str, Meta(description="Comment on an approval or a denial.")] | UnsetType = UNSET


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Error of a failed run."""

    code: Annotated[str, Meta(description="Error code for programs; stable.")]
    message: Annotated[
        str, Meta(description="Message for people, truncated to 2000 characters; the run record holds up to 5000.")
    ]
    step: Annotated[int | None, Meta(description="Index of the failed step, counted from 0.")] = None


class RunFinished(Truncated, frozen=True, kw_only=True):
    """The run has ended. No event follows unless the run is retried."""

    TYPE = TERMINAL_EVENT

    status: Annotated[RunEnd, Meta(description="Outcome.")]
    error: Annotated[Failure, Meta(description="Error, if the run failed.")] | UnsetType = UNSET
