"""Setup of a run: the tools that its model is offered."""

import pytest

from infra.contract.llm import ModelChoice
from infra.contract.runs import RunSpec
from infra.contract.tools import TOOLS
from worker.agent.settings import AgentSettings
from worker.agent.setup import build_setup
from worker.registry import REGISTRY
from worker.run.strategy import StepFailed


def offered(**spec: list[str]) -> set[str]:
    unready = {name for name, tool in REGISTRY.items() if not tool.ready}
    setup = build_setup(
        RunSpec(prompt="x", tools=spec.get("tools")), AgentSettings(), [ModelChoice(name="m")], [], unready=unready
    )
    return {tool.name for tool in setup.tools}


def test_a_tool_that_the_settings_rule_out_is_offered_only_by_name() -> None:
    assert offered() == {*TOOLS} - {"http_fetch"}
    # The call then fails, and its message names the setting.
    assert offered(tools=["http_fetch", "shell"]) == {"http_fetch", "shell"}


def test_a_run_with_a_tool_of_a_later_release_fails_with_the_name_of_the_tool() -> None:
    with pytest.raises(StepFailed, match="unknown tool 'browser'; allowed are code, ") as failed:
        offered(tools=["shell", "browser"])
    assert failed.value.error.code == "invalid_input"
