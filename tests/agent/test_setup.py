"""Setup of a run: the tools that its model is offered."""

from infra.contract.llm import ModelChoice
from infra.contract.runs import RunSpec
from infra.contract.tools import TOOLS
from worker.agent.settings import AgentSettings
from worker.agent.setup import build_setup
from worker.registry import REGISTRY


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
