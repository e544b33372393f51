"""Events of plans, steps, tools and files: `plan.created`, `step.*`, `tool.*`, `artifact`."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from infra.contract.events.base import Splittable, Truncated

ToolName = Annotated[str, Meta(description="The tool's name.")]
StepName = Annotated[str, Meta(description="Name of the step for people; the name of the tool if the step has none.")]
StepStatus = Annotated[Literal["succeeded", "failed"], Meta(description="Outcome.")]
CallName = Annotated[str, Meta(description="Name of the call, where a step makes several.")]
DurationMs = Annotated[int, Meta(description="Duration in ms.")]


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
    message: Annotated[str, Meta(description="Why a model has given the step up, for people.")] | UnsetType = UNSET


class ToolStarted(Truncated, frozen=True, kw_only=True):
    """A tool has been called."""

    TYPE = "tool.started"
    MAX_TEXT_CHARS = 200

    tool: ToolName
    args: Annotated[dict[str, Any], Meta(description="Arguments; each text is truncated to 200 characters.")]
    call: CallName | UnsetType = UNSET


class ToolOutput(Splittable, frozen=True, kw_only=True):
    """A tool has printed a line."""

    TYPE = "tool.output"

    stream: Annotated[Literal["stdout", "stderr"], Meta(description="Output stream.")]
    text: Annotated[str, Meta(description="Line without its line end, or a part of it.")]
    replaces_line: Annotated[
        bool,
        Meta(
            description="Whether this line replaces the previous one of the same step and stream: the program has"
            " overwritten it, as a progress bar does."
        ),
    ] = False
    line_end: (
        Annotated[
            Literal["crlf", "none", "overwritten"],
            Meta(
                description="End of the line, if it is not a line feed. `none`: the output ends without one."
                " `overwritten`: the program has overwritten the line, and earlier states of it may be left out."
            ),
        ]
        | UnsetType
    ) = UNSET
    call: CallName | UnsetType = UNSET

    def position(self, at: int) -> dict[str, bool]:
        """Return the field of the first part alone."""
        return {"replaces_line": True} if self.replaces_line and at == 0 else {}


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
            Sequence[str],
            Meta(description="Files with the complete output, if the log lacks bytes of it, or a model reads it."),
        ]
        | UnsetType
    ) = UNSET
    exit_code: (
        Annotated[int, Meta(description="Exit code of the program; 128 + n if signal n ended it.")] | UnsetType
    ) = UNSET
    call: CallName | UnsetType = UNSET


class Artifact(Truncated, frozen=True, kw_only=True):
    """A file of the workspace has been stored or deleted."""

    TYPE = "artifact"

    path: Annotated[str, Meta(description="Path relative to the workspace.")]
    size_bytes: Annotated[int, Meta(description="Size of a stored file.")] | UnsetType = UNSET
    deleted: Annotated[bool, Meta(description="Whether the file was deleted.")] = False
    content_type: (
        Annotated[
            str,
            Meta(
                description="Content type of a stored file, from a fixed list by the end of its name; "
                "`application/octet-stream` for others. Nobody has looked into the file."
            ),
        ]
        | UnsetType
    ) = UNSET
