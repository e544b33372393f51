"""Events of a run's log: the data of each type, and the list of all types.

Tests hold the schema that the API serves, the documentation, and the events that workers log to these classes. Readers
pass on unknown types and fields, because a newer release may have written them. Types and fields are only ever added.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

from infra.contract.log import TERMINAL_EVENT

RunEnd: TypeAlias = Literal["succeeded", "failed", "cancelled"]
"""Terminal statuses."""

Worker = Annotated[str, Meta(description="The worker's name.")]
AttemptNumber = Annotated[int, Meta(description="Number of the attempt, counted from 1 since the last retry.")]
Fence = Annotated[int, Meta(description="Number of the claim; it grows with each claim.")]
RunId = Annotated[str, Meta(description="Id of the source run.")]
ToolName = Annotated[str, Meta(description="The tool's name.")]
StepName = Annotated[str, Meta(description="Name of the step for people; the name of the tool if the step has none.")]
StepStatus = Annotated[Literal["succeeded", "failed"], Meta(description="Outcome.")]
DurationMs = Annotated[int, Meta(description="Duration in ms.")]
Text = Annotated[str, Meta(description="Text, or a part of it.")]


class EventData(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of the data of events. A field without a value is omitted.

    `TYPE` is the type of the event, `MAX_TEXT_CHARS` the number of characters to which each text is truncated.
    """

    TYPE: ClassVar[str]
    MAX_TEXT_CHARS: ClassVar[int] = 2000


class Truncated(EventData, frozen=True, kw_only=True):
    """Base of data that is logged as one event, truncated if it is too long."""


class Splittable(EventData, frozen=True, kw_only=True):
    """Base of data that is logged completely, as several consecutive events if it is too long for one.

    `SPLIT_FIELD` is the field that is split.
    """

    SPLIT_FIELD: ClassVar[str] = "text"

    more: Annotated[
        bool, Meta(description="Whether the next event of the same type, step and stream continues this one.")
    ] = False

    def position(self, _at: int) -> dict[str, int]:
        """Return the fields that say where in the complete value the part at index `_at` begins."""
        return {}


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
            description="`lease_expired` (the worker was lost), `unanswered` (its claim's reply was lost), `drained`, "
            "`files_unavailable`, `worker_short` (its host lacked disk space, open files, processes or memory)."
        ),
    ]
    delay_ms: Annotated[int, Meta(description="Delay in ms before the run is ready.")] | UnsetType = UNSET
    worker: Annotated[str, Meta(description="Name of the lost worker.")] | UnsetType = UNSET
    attempt: AttemptNumber | UnsetType = UNSET


class RunRetried(Truncated, frozen=True, kw_only=True):
    """A user has retried the run, which had ended; the same log continues."""

    TYPE = "run.retried"

    after: Annotated[Literal["failed", "cancelled"], Meta(description="Status in which the run had ended.")]


class RunForked(Truncated, frozen=True, kw_only=True):
    """The run has taken over the first steps of another run, with their results and files."""

    TYPE = "run.forked"

    run_id: RunId
    from_step: Annotated[int, Meta(description="Index of the first step to execute, counted from 0.")]


class RunWaiting(Truncated, frozen=True, kw_only=True):
    """The run waits for input; `resume` continues it."""

    TYPE = "run.waiting"
    MAX_TEXT_CHARS = 8000

    question: Annotated[str, Meta(description="Question, truncated to 8000 characters.")] | UnsetType = UNSET


class RunInput(Truncated, frozen=True, kw_only=True):
    """The run has received the input that it waited for."""

    TYPE = "run.input"
    MAX_TEXT_CHARS = 8000

    input: Annotated[
        str, Meta(description="Input, truncated to 8000 characters; the worker receives the complete input.")
    ]


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


class PlannedStep(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Step of a plan."""

    name: StepName
    tool: ToolName | UnsetType = UNSET


class PlanCreated(Splittable, frozen=True, kw_only=True):
    """A planner has made a plan, or has replaced the steps of a plan from an index on."""

    TYPE = "plan.created"
    MAX_TEXT_CHARS = 200
    SPLIT_FIELD = "steps"

    steps: Annotated[list[PlannedStep], Meta(description="Steps in order.")]
    first: Annotated[int, Meta(description="Index of the first of these steps; earlier steps stay as they are.")] = 0

    def position(self, at: int) -> dict[str, int]:
        """Return the index of the part's first step."""
        return {"first": self.first + at} if self.first + at else {}


class StepStarted(Truncated, frozen=True, kw_only=True):
    """A step has started."""

    TYPE = "step.started"

    name: StepName
    tool: ToolName | UnsetType = UNSET


class StepFinished(Truncated, frozen=True, kw_only=True):
    """A step has ended; its result and its changes of the workspace are stored together with this event."""

    TYPE = "step.finished"

    status: StepStatus
    duration_ms: DurationMs


class ToolStarted(Truncated, frozen=True, kw_only=True):
    """A tool has been called."""

    TYPE = "tool.started"
    MAX_TEXT_CHARS = 200

    tool: ToolName
    args: Annotated[dict[str, Any], Meta(description="Arguments; each text is truncated to 200 characters.")]


class ToolOutput(Splittable, frozen=True, kw_only=True):
    """A tool has printed a line."""

    TYPE = "tool.output"

    stream: Annotated[Literal["stdout", "stderr"], Meta(description="Output stream.")]
    text: Annotated[str, Meta(description="Line without its line end, or a part of it.")]


class ToolFinished(Truncated, frozen=True, kw_only=True):
    """A tool call has ended."""

    TYPE = "tool.finished"

    tool: ToolName
    status: StepStatus
    duration_ms: DurationMs
    code: (
        Annotated[str, Meta(description="Error code of a failure, for programs, such as `exit_code`.")] | UnsetType
    ) = UNSET
    message: (
        Annotated[str, Meta(description="Message of a failure, for people; truncated to 2000 characters.")] | UnsetType
    ) = UNSET
    kept: (
        Annotated[
            Sequence[str], Meta(description="Files with the complete output, if the log holds only a part of it.")
        ]
        | UnsetType
    ) = UNSET


class Artifact(Truncated, frozen=True, kw_only=True):
    """A file of the workspace has been stored or deleted."""

    TYPE = "artifact"

    path: Annotated[str, Meta(description="Path relative to the workspace.")]
    size_bytes: Annotated[int, Meta(description="Size of a stored file.")] | UnsetType = UNSET
    deleted: Annotated[bool, Meta(description="Whether the file was deleted.")] = False


class Message(Splittable, frozen=True, kw_only=True):
    """Message of the agent to the people who watch the run."""

    TYPE = "message"

    text: Text


class Log(Truncated, frozen=True, kw_only=True):
    """Note of the platform about the run."""

    TYPE = "log"

    level: Annotated[Literal["info", "warning", "error"], Meta(description="Severity.")]
    message: Annotated[str, Meta(description="Message for people; truncated to 2000 characters.")]


class ModelDelta(Splittable, frozen=True, kw_only=True):
    """Piece of a model's reply, while the model writes it. `model.message` repeats the complete reply."""

    TYPE = "model.delta"

    text: Text


class ModelMessage(Splittable, frozen=True, kw_only=True):
    """Complete text of a model's reply."""

    TYPE = "model.message"

    text: Text
    model: Annotated[str, Meta(description="Name of the model.")] | UnsetType = UNSET
    input_tokens: Annotated[int, Meta(description="Number of tokens that the model read.")] | UnsetType = UNSET
    output_tokens: Annotated[int, Meta(description="Number of tokens that the model wrote.")] | UnsetType = UNSET


EVENTS: Mapping[str, type[Truncated] | type[Splittable]] = MappingProxyType(
    {
        kind.TYPE: kind
        for kind in (
            RunStarted,
            RunResumed,
            RunRequeued,
            RunRetried,
            RunForked,
            RunWaiting,
            RunInput,
            RunFinished,
            PlanCreated,
            StepStarted,
            StepFinished,
            ToolStarted,
            ToolOutput,
            ToolFinished,
            Artifact,
            Message,
            Log,
            ModelDelta,
            ModelMessage,
        )
    }
)
"""Types of event that this release knows."""
