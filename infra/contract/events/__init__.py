"""Events of a run's log: the data of each type, and the list of all types.

Tests hold the schema that the API serves, the documentation, and the events that workers log to these classes. Readers
pass on unknown types and fields, because a newer release may have written them. Types and fields are only ever added.
"""

from collections.abc import Mapping
from types import MappingProxyType

from infra.contract.events.base import Splittable, Truncated
from infra.contract.events.message import (
    ContextCompacted,
    LimitNear,
    Log,
    Message,
    MessageReceived,
    ModelDelta,
    ModelMessage,
    ModelRetry,
    ModelStarted,
)
from infra.contract.events.run import (
    Decision,
    Failure,
    RunContinued,
    RunEnd,
    RunFinished,
    RunForked,
    RunInput,
    RunRequeued,
    RunResumed,
    RunRetried,
    RunStarted,
    RunWaiting,
)
from infra.contract.events.step import (
    Artifact,
    PlanCreated,
    PlannedStep,
    StepFinished,
    StepStarted,
    ToolFinished,
    ToolOutput,
    ToolStarted,
)

EVENTS: Mapping[str, type[Truncated] | type[Splittable]] = MappingProxyType(
    {
        kind.TYPE: kind
        for kind in (
            RunStarted,
            RunResumed,
            RunRequeued,
            RunRetried,
            RunForked,
            RunContinued,
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
            MessageReceived,
            Log,
            ModelStarted,
            ModelDelta,
            ModelMessage,
            ModelRetry,
            ContextCompacted,
            LimitNear,
        )
    }
)
"""Types of event that this release knows."""

__all__ = [
    "EVENTS",
    "Artifact",
    "ContextCompacted",
    "Decision",
    "Failure",
    "LimitNear",
    "Log",
    "Message",
    "MessageReceived",
    "ModelDelta",
    "ModelMessage",
    "ModelRetry",
    "ModelStarted",
    "PlanCreated",
    "PlannedStep",
    "RunContinued",
    "RunEnd",
    "RunFinished",
    "RunForked",
    "RunInput",
    "RunRequeued",
    "RunResumed",
    "RunRetried",
    "RunStarted",
    "RunWaiting",
    "Splittable",
    "StepFinished",
    "StepStarted",
    "ToolFinished",
    "ToolOutput",
    "ToolStarted",
    "Truncated",
]
