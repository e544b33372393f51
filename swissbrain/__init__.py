"""Client of the SwissBrain Agent API: `from swissbrain import Client`.

This package imports nothing outside itself but its dependencies, so it works in any project and without the servers.
"""

from swissbrain.client import Client
from swissbrain.errors import ApiError, ClientError, ProtocolError, Unreachable
from swissbrain.models import (
    Attempt,
    Event,
    File,
    Gap,
    PlanStep,
    QueueDepths,
    Run,
    RunError,
    RunState,
    RunSummary,
    StreamToken,
)

__all__ = [
    "ApiError",
    "Attempt",
    "Client",
    "ClientError",
    "Event",
    "File",
    "Gap",
    "PlanStep",
    "ProtocolError",
    "QueueDepths",
    "Run",
    "RunError",
    "RunState",
    "RunSummary",
    "StreamToken",
    "Unreachable",
]
