"""The tool `message`."""

from infra.contract.tools import MessageArgs
from worker.toolkit.base import Tool, ToolContext, ToolResult


async def run(args: MessageArgs, context: ToolContext) -> ToolResult:
    """Say something to whoever watches the run."""
    await context.message(args.text)
    return ToolResult()


TOOL = Tool("message", MessageArgs, run, idempotent=True)
