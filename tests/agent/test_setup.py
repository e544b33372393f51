"""Setup of a run: the tools that its model is offered."""

from typing import Any

import pytest

from infra.contract.llm import ModelChoice
from infra.contract.runs import RunSpec
from infra.contract.tools import TOOLS
from infra.egress.settings import NetworkSettings
from infra.host_patterns import HostPattern
from worker.agent.settings import AgentSettings
from worker.agent.setup import build_setup
from worker.fetch.settings import FetchSettings
from worker.registry import registry
from worker.run.strategy import StepFailed


def offered(**spec: list[str]) -> set[str]:
    setup = build_setup(RunSpec(prompt="x", tools=spec.get("tools")), AgentSettings(), [ModelChoice(name="m")], [])
    return {tool.name for tool in setup.tools}


def test_a_tool_that_the_settings_rule_out_is_offered_only_by_name() -> None:
    assert offered() == {*TOOLS} - {"browser", "http_fetch"}
    # The call then fails, and its message names the setting.
    assert offered(tools=["http_fetch", "shell"]) == {"http_fetch", "shell"}


def test_a_run_with_a_tool_of_a_later_release_fails_with_the_name_of_the_tool() -> None:
    with pytest.raises(StepFailed, match="unknown tool 'telescope'; allowed are browser, code, ") as failed:
        offered(tools=["shell", "telescope"])
    assert failed.value.error.code == "invalid_input"


def test_a_model_is_told_of_the_network_only_where_the_operator_allows_one() -> None:
    def network(**settings: Any) -> Any:
        tools = registry(FetchSettings(), NetworkSettings(**settings))
        setup = build_setup(RunSpec(prompt="x"), AgentSettings(), [ModelChoice(name="m")], [], registered=tools)
        found = [tool.parameters["properties"].get("network") for tool in setup.tools if tool.name in ("shell", "code")]
        assert found[0] == found[1]
        return found[0]

    assert network() is None
    text = network(allow=[HostPattern.parse("*.pypi.org:443")], private_hosts={("mirror", 80)})["description"]
    assert text.endswith("By default none. The operator allows *.pypi.org:443, mirror:80.")
