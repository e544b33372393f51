"""The product's worker, with side effects that can be counted: `python -m tests.chaos.worker`.

Its tool `message` also appends a line to the file EFFECTS_FILE names if the text is `effect NUMBER [SECONDS]`, and
ends so many seconds later. That file lies outside of every sandbox and workspace, so nothing takes back what an
execution has left there.
"""

import asyncio
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from unittest.mock import patch

from infra.contract.models import PlanStep
from infra.contract.tools import MessageArgs
from worker import __main__ as root
from worker.context import RunContext
from worker.plan import PlanWalker
from worker.tools import message
from worker.tools.base import Tool, ToolContext, ToolResult
from worker.tools.registry import REGISTRY

EFFECTS_FILE = "CHAOS_EFFECTS_FILE"
EFFECT = "effect"

_fence: ContextVar[int] = ContextVar("fence")


class FencedWalker(PlanWalker):
    """Lets the tools know under which fence they are called."""

    async def walk(
        self, context: RunContext, plan: Sequence[PlanStep], draining: Callable[[], bool]
    ) -> dict[str, object]:
        _fence.set(context.run.fence)
        return await super().walk(context, plan, draining)


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
    return await message.run(args, context)


def main() -> int:
    """What the product's worker does, with the tool and the walker exchanged."""
    tools = {**REGISTRY, "message": Tool("message", MessageArgs, say, idempotent=True)}
    with patch.multiple(root, REGISTRY=tools, PlanWalker=FencedWalker):
        return root.main()


if __name__ == "__main__":
    sys.exit(main())
