"""Tool `shell`: executes a command line."""

from infra.contract.tools import ShellArgs
from infra.egress.settings import NetworkSettings
from worker.toolkit.base import Tool, ToolContext
from worker.toolkit.execution import ExecutionResult, execute
from worker.toolkit.network import granted, has_no_network, note_of


def tool(network: NetworkSettings) -> Tool:
    """Return the tool, whose programs may reach what the settings allow."""

    async def run(args: ShellArgs, context: ToolContext) -> ExecutionResult:
        """Execute a command line with `sh`."""
        return await execute(context, "sh", args.command, args.timeout_s, granted(args.network, network))

    return Tool("shell", ShellArgs, run, idempotent=has_no_network, executes=True, notes=note_of(network))
