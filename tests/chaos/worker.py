"""The product's worker with countable side effects: `python -m tests.chaos.worker`.

The tool `message` acts on two texts before it logs them. `effect NUMBER [SECONDS]` appends a line to the file that
EFFECTS_FILE names, and then waits. That file is outside of every sandbox and workspace, so each execution leaves its
line there for good. `hang SECONDS` blocks the whole process for that time, once per run, and then writes the file
`late` to the workspace, as a worker does that was suspended past its lease.
"""

import asyncio
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from unittest.mock import patch

from infra.contract.tools import MessageArgs
from worker import __main__ as root
from worker.plan_or_prompt import PlanOrPrompt
from worker.registry import REGISTRY
from worker.run import archiver
from worker.run.context import RunContext
from worker.toolkit.base import Tool, ToolContext, ToolResult
from worker.tools import message

EFFECTS_FILE = "CHAOS_EFFECTS_FILE"
SEGMENT_EVENTS = "CHAOS_SEGMENT_EVENTS"
REAPED_S = "CHAOS_REAPED_S"
"""Variable with the mean interval of the reaper of Jobs, where programs run in a cluster."""
LEASE_S = 2.0
"""Lease of its runs, unless a test sets another one."""
EFFECT = "effect"
HANG = "hang"

_fence: ContextVar[int] = ContextVar("fence")


class FencedStrategy(PlanOrPrompt):
    """Strategy that makes the fence available to the tools."""

    async def work(self, context: RunContext, draining: Callable[[], bool]) -> dict[str, object]:
        _fence.set(context.run.fence)
        return await super().work(context, draining)


async def say(args: MessageArgs, context: ToolContext) -> ToolResult:
    """Write the effect or hang if the text asks for it, then log the message."""
    if args.text.startswith(EFFECT):
        line = f"{context.run_id} {context.call} {_fence.get()} {os.getpid()} {time.time():.6f}\n"
        file = os.open(os.environ[EFFECTS_FILE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)
        await asyncio.sleep(sum(map(float, args.text.split()[2:])))
    if args.text.startswith(HANG):
        await hang(float(args.text.split()[1]), context)
    return await message.run(args, context)


async def hang(seconds: float, context: ToolContext) -> None:
    """Block the process in the first execution of the run, then write a file."""
    with suppress(FileExistsError):
        Path(f"{os.environ[EFFECTS_FILE]}.{context.run_id}").touch(exist_ok=False)
        time.sleep(seconds)  # noqa: ASYNC251 - the injected fault
        await context.files.write("late", b"of the suspended worker")


def main() -> int:
    """Run the product's worker with this tool, this strategy, and segments of the size that SEGMENT_EVENTS sets."""
    tools = {**REGISTRY, "message": Tool("message", MessageArgs, say, idempotent=True)}
    events = int(os.environ.get(SEGMENT_EVENTS, archiver.SEGMENT_EVENTS))
    if REAPED_S in os.environ:
        from infra.k8s_executor import reaper

        reaper.INTERVAL_S = float(os.environ[REAPED_S])
    with (
        patch.multiple(root, registry=lambda *_: tools, PlanOrPrompt=FencedStrategy),
        patch.object(archiver, "SEGMENT_EVENTS", events),
    ):
        return root.main()


if __name__ == "__main__":
    sys.exit(main())
