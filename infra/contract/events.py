"""What the log of a run tells: the data of each type of event, and the one list of the types.

The schema that the API serves, the documentation and all that workers log are held to these. Whoever reads a log passes
on types and fields that are not known here: a newer release may have written them. Both are only ever added.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

from infra.contract.log import TERMINAL_EVENT

RunEnd: TypeAlias = Literal["succeeded", "failed", "cancelled"]
"""The terminal statuses."""

Worker = Annotated[str, Meta(description="The worker's name.")]
AttemptNumber = Annotated[int, Meta(description="The attempt, counted from 1 since the last retry.")]
Fence = Annotated[int, Meta(description="The number of the claim; it grows with each.")]
RunId = Annotated[str, Meta(description="The other run.")]
ToolName = Annotated[str, Meta(description="The tool's name.")]
StepName = Annotated[str, Meta(description="The step's name for people; the tool's if it has none.")]
StepStatus = Annotated[Literal["succeeded", "failed"], Meta(description="How it ended.")]
DurationMs = Annotated[int, Meta(description="How long it took, in ms.")]
Text = Annotated[str, Meta(description="The text, or a part of it.")]


class EventData(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of the data of events. A field without a value is left out.

    `TYPE` is the type of the event. `MAX_TEXT_CHARS`: each text in it is cut to so many characters.
    """

    TYPE: ClassVar[str]
    MAX_TEXT_CHARS: ClassVar[int] = 2000


class Truncated(EventData, frozen=True, kw_only=True):
    """Base of what is told in one event, cut if it must be."""


class Splittable(EventData, frozen=True, kw_only=True):
    """Base of what is told whole, in several events that follow each other if it is too long for one.

    `SPLIT_FIELD` is the field that is divided.
    """

    SPLIT_FIELD: ClassVar[str] = "text"

    more: Annotated[bool, Meta(description="It goes on in the next event of the same type, step and stream.")] = False

    def place(self, _at: int) -> dict[str, int]:
        """The fields of a part that say where in the whole it begins; the others are the same in all parts."""
        return {}


class RunStarted(Truncated, frozen=True, kw_only=True):
    """A worker has begun the run."""

    TYPE = "run.started"

    worker: Worker
    attempt: AttemptNumber
    fence: Fence


class RunResumed(Truncated, frozen=True, kw_only=True):
    """A worker goes on with the run at the first step that is not completed."""

    TYPE = "run.resumed"

    worker: Worker
    attempt: AttemptNumber
    fence: Fence


class RunRequeued(Truncated, frozen=True, kw_only=True):
    """The run waits for a worker again: its worker gave it back, or was lost."""

    TYPE = "run.requeued"

    reason: Annotated[
        str,
        Meta(
            description="`lease_expired` (the worker was lost), `unanswered` (it never heard of its claim), `drained`, "
            "`files_unavailable`, `worker_short` (its host was short of disk space, open files, processes or memory)."
        ),
    ]
    delay_ms: Annotated[int, Meta(description="It goes on no sooner than after so many ms.")] | UnsetType = UNSET
    worker: Annotated[str, Meta(description="The worker that was lost.")] | UnsetType = UNSET
    attempt: AttemptNumber | UnsetType = UNSET


class RunRetried(Truncated, frozen=True, kw_only=True):
    """Somebody had a run that had ended queued again; its log goes on."""

    TYPE = "run.retried"

    after: Annotated[Literal["failed", "cancelled"], Meta(description="How the run had ended.")]


class RunForked(Truncated, frozen=True, kw_only=True):
    """The run has taken over the first steps of another one, with their results and files."""

    TYPE = "run.forked"

    run_id: RunId
    from_step: Annotated[int, Meta(description="The first step to execute here, counted from 0.")]


class RunWaiting(Truncated, frozen=True, kw_only=True):
    """The run waits for input; it goes on with `resume`."""

    TYPE = "run.waiting"
    MAX_TEXT_CHARS = 8000

    question: Annotated[str, Meta(description="What is asked, cut to 8000 characters.")] | UnsetType = UNSET


class RunInput(Truncated, frozen=True, kw_only=True):
    """The run was given the input that it waited for."""

    TYPE = "run.input"
    MAX_TEXT_CHARS = 8000

    input: Annotated[str, Meta(description="The input, cut to 8000 characters; the worker gets all of it.")]


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a run failed."""

    code: Annotated[str, Meta(description="For programs: one word that stays the same.")]
    message: Annotated[str, Meta(description="For people, cut to 2000 characters; the run has up to 5000.")]
    step: Annotated[int | None, Meta(description="The step that failed, counted from 0.")] = None


class RunFinished(Truncated, frozen=True, kw_only=True):
    """The run has ended. Nothing follows unless it is retried."""

    TYPE = TERMINAL_EVENT

    status: Annotated[RunEnd, Meta(description="How it ended.")]
    error: Annotated[Failure, Meta(description="Why, if it failed.")] | UnsetType = UNSET


class PlannedStep(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A step of a plan."""

    name: StepName
    tool: ToolName | UnsetType = UNSET


class PlanCreated(Splittable, frozen=True, kw_only=True):
    """A planner has made a plan, or another one from a step on."""

    TYPE = "plan.created"
    MAX_TEXT_CHARS = 200
    SPLIT_FIELD = "steps"

    steps: Annotated[list[PlannedStep], Meta(description="The steps in order.")]
    first: Annotated[int, Meta(description="Index of the first of these steps; those before it stay.")] = 0

    def place(self, at: int) -> dict[str, int]:
        """The index of the part's first step."""
        return {"first": self.first + at} if self.first + at else {}


class StepStarted(Truncated, frozen=True, kw_only=True):
    """A step begins."""

    TYPE = "step.started"

    name: StepName
    tool: ToolName | UnsetType = UNSET


class StepFinished(Truncated, frozen=True, kw_only=True):
    """A step has ended; its result, and what it did in the workspace, are stored together with this event."""

    TYPE = "step.finished"

    status: StepStatus
    duration_ms: DurationMs


class ToolStarted(Truncated, frozen=True, kw_only=True):
    """A tool is called."""

    TYPE = "tool.started"
    MAX_TEXT_CHARS = 200

    tool: ToolName
    args: Annotated[dict[str, Any], Meta(description="Its arguments; each text is cut to 200 characters.")]


class ToolOutput(Splittable, frozen=True, kw_only=True):
    """A tool printed a line."""

    TYPE = "tool.output"

    stream: Annotated[Literal["stdout", "stderr"], Meta(description="Where it was printed.")]
    text: Annotated[str, Meta(description="The line without its end, or a part of it.")]


class ToolFinished(Truncated, frozen=True, kw_only=True):
    """A tool's call has ended."""

    TYPE = "tool.finished"

    tool: ToolName
    status: StepStatus
    duration_ms: DurationMs
    code: Annotated[str, Meta(description="Of a failure, for programs: such as `exit_code`.")] | UnsetType = UNSET
    message: Annotated[str, Meta(description="Of a failure, for people; cut to 2000 characters.")] | UnsetType = UNSET
    kept: (
        Annotated[Sequence[str], Meta(description="Files with the whole output, if it is more than the log took.")]
        | UnsetType
    ) = UNSET


class Artifact(Truncated, frozen=True, kw_only=True):
    """A file of the workspace was stored or deleted."""

    TYPE = "artifact"

    path: Annotated[str, Meta(description="Relative to the workspace.")]
    size_bytes: Annotated[int, Meta(description="The file's size, if it was stored.")] | UnsetType = UNSET
    deleted: Annotated[bool, Meta(description="Whether it was deleted.")] = False


class Message(Splittable, frozen=True, kw_only=True):
    """The agent says something to whoever watches."""

    TYPE = "message"

    text: Text


class Log(Truncated, frozen=True, kw_only=True):
    """The platform notes something about the run."""

    TYPE = "log"

    level: Annotated[Literal["info", "warning", "error"], Meta(description="How bad it is.")]
    message: Annotated[str, Meta(description="For people; cut to 2000 characters.")]


class ModelDelta(Splittable, frozen=True, kw_only=True):
    """A piece of a model's reply, as it is made. `model.message` repeats all of the reply."""

    TYPE = "model.delta"

    text: Text


class ModelMessage(Splittable, frozen=True, kw_only=True):
    """The whole text of a model's reply."""

    TYPE = "model.message"

    text: Text
    model: Annotated[str, Meta(description="The model's name.")] | UnsetType = UNSET
    input_tokens: Annotated[int, Meta(description="How many tokens the model read.")] | UnsetType = UNSET
    output_tokens: Annotated[int, Meta(description="How many tokens it wrote.")] | UnsetType = UNSET


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
"""Every type of event that this release knows."""
