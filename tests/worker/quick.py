"""The product's worker for whom a second is a hundred: `python -m tests.worker.quick`.

Only how long Redis has been silent is told by that clock, and an idle worker looks at its queue each half second of
ours; the limit is the product's. Its tool `message` takes `hang PATH` for an order to stop the event loop until that
file is there.
"""

import sys
import time
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

from infra.contract.tools import MessageArgs
from worker import __main__ as root
from worker import health
from worker.queue import loop
from worker.registry import REGISTRY
from worker.toolkit.base import Tool, ToolContext, ToolResult
from worker.tools import message

FACTOR = 100
BLOCK_S = 0.5
HANG = "hang "


async def say(args: MessageArgs, context: ToolContext) -> ToolResult:
    """Hang if that is the text, then say it."""
    if args.text.startswith(HANG):
        while not Path(args.text.removeprefix(HANG)).exists():
            time.sleep(0.01)  # noqa: ASYNC251 - that is the fault
    return await message.run(args, context)


def main() -> int:
    """What the product's worker does, with this clock and this tool."""
    tools = {**REGISTRY, "message": Tool("message", MessageArgs, say, idempotent=True)}
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() * FACTOR)
    with (
        patch.object(root, "REGISTRY", tools),
        patch.object(health, "time", clock),
        patch.object(loop, "MAX_BLOCK_S", BLOCK_S),
    ):
        return root.main()


if __name__ == "__main__":
    sys.exit(main())
