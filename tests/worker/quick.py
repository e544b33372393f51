"""The product's worker with a health clock 100 times as fast: `python -m tests.worker.quick`.

Only the age of the last reply of Redis is measured by that clock; the limit is the product's. An idle worker claims
every half second of real time. With the text `hang PATH`, the tool `message` blocks the event loop until that file
exists.
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
    """Block the event loop if the text asks for it, then log the message."""
    if args.text.startswith(HANG):
        while not Path(args.text.removeprefix(HANG)).exists():
            time.sleep(0.01)  # noqa: ASYNC251 - the injected fault
    return await message.run(args, context)


def main() -> int:
    """Run the product's worker with this clock and this tool."""
    tools = {**REGISTRY, "message": Tool("message", MessageArgs, say, idempotent=True)}
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() * FACTOR)
    with (
        patch.object(root, "registry", lambda *_: tools),
        patch.object(health, "time", clock),
        patch.object(loop, "MAX_BLOCK_S", BLOCK_S),
    ):
        return root.main()


if __name__ == "__main__":
    sys.exit(main())
