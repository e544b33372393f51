"""Tool `message`: sends a message to the people who watch the run."""

from infra.contract.tools import MessageArgs
from worker.toolkit.base import Tool, ToolContext, ToolResult


async def run(args: MessageArgs, context: ToolContext) -> ToolResult:
    """Log the text as an event `message`."""
    await context.message(args.text)
    return ToolResult()


TOOL = Tool("message", MessageArgs, run, idempotent=True)
