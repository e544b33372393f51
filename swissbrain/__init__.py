"""Client of the SwissBrain Agent API.

from swissbrain import Client, shell

with Client.from_env() as client:
    run = client.run(shell("seq 3 > numbers.txt"))
    print(client.read_text(run.run_id, "numbers.txt"))

`AsyncClient` has the same methods for asynchronous programs. This package imports nothing outside itself but its
dependencies, so it works in any project and without the servers.
"""

from __future__ import annotations

# Neither `typing` nor anything else is imported here: the command catches Ctrl-C only once this module is there.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

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
        Identity,
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
        browser,
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
    from swissbrain.webhooks import WebhookDelivery, WebhookEvent, WebhookRejected

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
    "Identity",
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
    "WebhookDelivery",
    "WebhookEvent",
    "WebhookRejected",
    "browser",
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

_MODULES = ("code", "plan", "models", "agent", "errors", "schedules", "webhooks", "_sync.client", "_async.client")
"""Modules that define these names; those that take longer to import come later."""

if not TYPE_CHECKING:  # a type checker would accept any name of a module with this function

    def __getattr__(name: str) -> Any:
        """Import a name when it is first used: the HTTP library of the clients takes longer than most commands do."""
        from importlib import import_module

        if name in __all__:
            for source in _MODULES:
                module = import_module(f"{__name__}.{source}")
                if source == name or hasattr(module, name):
                    globals()[name] = found = module if source == name else getattr(module, name)
                    return found
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
