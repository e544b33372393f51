"""Tool `code`: executes a program in Python, Bash or Node."""

from infra.contract.tools import CodeArgs
from worker.toolkit.base import Tool, ToolContext
from worker.toolkit.execution import ExecutionResult, execute


async def run(args: CodeArgs, context: ToolContext) -> ExecutionResult:
    """Execute `source` with the interpreter of its language."""
    return await execute(context, args.language, args.source, args.timeout_s)


TOOL = Tool("code", CodeArgs, run, idempotent=True, executes=True)
