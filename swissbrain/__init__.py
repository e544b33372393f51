"""Client of the SwissBrain Agent API.

from swissbrain import Client, shell

with Client.from_env() as client:
    run = client.run(shell("seq 3 > numbers.txt"))
    print(client.read_text(run.run_id, "numbers.txt"))

`AsyncClient` has the same methods for asynchronous programs. This package imports nothing outside itself but its
dependencies, so it works in any project and without the servers.
"""

from swissbrain import code
from swissbrain._async.client import AsyncClient
from swissbrain._sync.client import Client
from swissbrain.agent import (
    AgentOptions,
    ApprovalRule,
    CallOutcome,
    DayUsage,
    Limits,
    ModelUsage,
    OpenRequest,
    UsageReport,
    Waiting,
)
from swissbrain.errors import ApiError, ClientError, ProtocolError, RunFailed, Unreachable, WaitTimeout
from swissbrain.models import (
    Attempt,
    Event,
    File,
    FileLink,
    ForkOf,
    Gap,
    InputFile,
    PlanStep,
    QueueDepths,
    QueuePlace,
    Run,
    RunError,
    RunState,
    RunSummary,
    Step,
    StreamToken,
)
from swissbrain.plan import (
    NewRun,
    Plan,
    file_delete,
    file_list,
    file_read,
    file_write,
    http_fetch,
    message,
    shell,
    step,
)
from swissbrain.schedules import LastTick, Schedule, ScheduleSummary, TickResult

__all__ = [
    "AgentOptions",
    "ApiError",
    "ApprovalRule",
    "AsyncClient",
    "Attempt",
    "CallOutcome",
    "Client",
    "ClientError",
    "DayUsage",
    "Event",
    "File",
    "FileLink",
    "ForkOf",
    "Gap",
    "InputFile",
    "LastTick",
    "Limits",
    "ModelUsage",
    "NewRun",
    "OpenRequest",
    "Plan",
    "PlanStep",
    "ProtocolError",
    "QueueDepths",
    "QueuePlace",
    "Run",
    "RunError",
    "RunFailed",
    "RunState",
    "RunSummary",
    "Schedule",
    "ScheduleSummary",
    "Step",
    "StreamToken",
    "TickResult",
    "Unreachable",
    "UsageReport",
    "WaitTimeout",
    "Waiting",
    "code",
    "file_delete",
    "file_list",
    "file_read",
    "file_write",
    "http_fetch",
    "message",
    "shell",
    "step",
]
