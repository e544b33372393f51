"""Records of calls: whose results may hold the instructions of strangers."""

from typing import Any, cast
from unittest.mock import AsyncMock, Mock

import pytest

from infra.contract.tools import ShellArgs
from worker.agent import calling
from worker.agent.calling import Place
from worker.registry import REGISTRY
from worker.run.context import RunContext
from worker.run.tool_failures import CallTime
from worker.toolkit.base import Tool, ToolResult


@pytest.mark.parametrize("network", [(), ("pypi.org:443",)])
async def test_the_result_of_a_program_with_a_network_is_untrusted(network: tuple[str, ...]) -> None:
    async def run(_args: Any, _context: Any) -> ToolResult:
        return ToolResult()

    tool = Tool("shell", ShellArgs, run, idempotent=REGISTRY["shell"].idempotent)
    unbegun = Mock(side_effect=lambda _call, timeout_s: CallTime(timeout_s))
    context = cast("RunContext", Mock(emitter=Mock(emit=AsyncMock()), call_time=unbegun))
    record = await calling._call(context, tool, ShellArgs(command="true", network=network), Place(0, 0, 0, 10))
    assert record.untrusted is bool(network)
