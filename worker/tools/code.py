"""Tool `code`: executes a program in Python, Bash or Node."""

from infra.contract.tools import CodeArgs
from infra.egress.settings import NetworkSettings
from worker.toolkit.base import Tool, ToolContext
from worker.toolkit.execution import ExecutionResult, execute
from worker.toolkit.network import granted, has_no_network, note_of


def tool(network: NetworkSettings) -> Tool:
    """Return the tool, whose programs may reach what the settings allow."""

    async def run(args: CodeArgs, context: ToolContext) -> ExecutionResult:
        """Execute `source` with the interpreter of its language."""
        return await execute(context, args.language, args.source, args.timeout_s, granted(args.network, network))

    return Tool("code", CodeArgs, run, idempotent=has_no_network, executes=True, notes=note_of(network))
