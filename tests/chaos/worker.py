"""The product's worker, with side effects that can be counted: `python -m tests.chaos.worker`.

Its tool `message` also appends a line to the file EFFECTS_FILE names if the text is `effect NUMBER [SECONDS]`, and
ends so many seconds later. That file lies outside of every sandbox and workspace, so nothing takes back what an
execution has left there. With the text `hang SECONDS` the whole process stands still so long, once in a run, and then
goes on as if nothing had happened: it writes the file `late`.
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
from worker.plan import PlanWalker
from worker.registry import REGISTRY
from worker.run import archiver
from worker.run.context import RunContext
from worker.toolkit.base import Tool, ToolContext, ToolResult
from worker.tools import message

EFFECTS_FILE = "CHAOS_EFFECTS_FILE"
SEGMENT_EVENTS = "CHAOS_SEGMENT_EVENTS"
EFFECT = "effect"
HANG = "hang"

_fence: ContextVar[int] = ContextVar("fence")


class FencedWalker(PlanWalker):
    """Lets the tools know under which fence they are called."""

    async def work(self, context: RunContext, draining: Callable[[], bool]) -> dict[str, object]:
        _fence.set(context.run.fence)
        return await super().work(context, draining)


async def say(args: MessageArgs, context: ToolContext) -> ToolResult:
    """Leave the effect, take the time, then say it."""
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
    """The first execution stands still, and writes a file after that."""
    with suppress(FileExistsError):
        Path(f"{os.environ[EFFECTS_FILE]}.{context.run_id}").touch(exist_ok=False)
        time.sleep(seconds)  # noqa: ASYNC251 - that is the fault
        await context.files.write("late", b"of the worker that stood still")


def main() -> int:
    """What the product's worker does, with the tool and the walker exchanged, and segments as small as asked."""
    tools = {**REGISTRY, "message": Tool("message", MessageArgs, say, idempotent=True)}
    events = int(os.environ.get(SEGMENT_EVENTS, archiver.SEGMENT_EVENTS))
    with (
        patch.multiple(root, REGISTRY=tools, PlanWalker=FencedWalker),
        patch.object(archiver, "SEGMENT_EVENTS", events),
    ):
        return root.main()


if __name__ == "__main__":
    sys.exit(main())
