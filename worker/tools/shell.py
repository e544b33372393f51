"""Tool `shell`: executes a command line."""

from infra.contract.tools import ShellArgs
from worker.toolkit.base import Tool, ToolContext
from worker.toolkit.execution import ExecutionResult, execute


async def run(args: ShellArgs, context: ToolContext) -> ExecutionResult:
    """Execute a command line with `sh`."""
    return await execute(context, "sh", args.command, args.timeout_s)


TOOL = Tool("shell", ShellArgs, run, idempotent=True, executes=True)
