"""Tools as models see them."""

import json

import msgspec
import pytest

from infra.contract.agent import ApprovalRule
from infra.contract.errors import InvalidInput
from infra.contract.llm import ToolSpec
from infra.contract.tools import TOOLS
from worker.agent.schemas import CONTROL, FinishArgs, control_specs, tool_specs, usage_of


def names(specs: list[ToolSpec]) -> list[str]:
    return [spec.name for spec in specs]


def test_every_tool_is_offered_with_a_schema_without_references() -> None:
    specs = tool_specs(TOOLS, [])
    assert names(specs) == sorted(TOOLS)
    for spec in [*specs, *control_specs()]:
        assert spec.description
        assert spec.parameters["type"] == "object"
        assert spec.parameters["additionalProperties"] is False
        assert "$" not in json.dumps(spec.parameters)
        kind = TOOLS.get(spec.name) or CONTROL[spec.name]
        assert set(spec.parameters["properties"]) == set(kind.__struct_encode_fields__)


def test_a_run_has_the_tools_that_it_names() -> None:
    assert names(tool_specs(["shell", "file_read", "shell"], [])) == ["file_read", "shell"]
    assert tool_specs([], []) == []


def test_an_unknown_tool_is_refused_with_the_names_of_all() -> None:
    with pytest.raises(InvalidInput, match="unknown tool 'sh'; allowed are browser, code, file_delete"):
        tool_specs(["sh"], [])


@pytest.mark.parametrize(
    ("rules", "offered"),
    [
        ([ApprovalRule(tool="shell", policy="deny")], {"code", "file_read"}),
        ([ApprovalRule(tool="shell", policy="deny", match={"command": "rm*"})], {"code", "file_read", "shell"}),
        ([ApprovalRule(tool="*", policy="deny")], set()),
        ([ApprovalRule(tool="*", policy="deny"), ApprovalRule(tool="code", policy="ask")], {"code"}),
        (
            [
                ApprovalRule(tool="*", policy="deny"),
                ApprovalRule(tool="code", policy="deny", match={"language": "bash"}),
            ],
            set(),
        ),
        (
            [ApprovalRule(tool="shell", policy="deny"), ApprovalRule(tool="shell", policy="allow")],
            {"code", "file_read"},
        ),
    ],
)
def test_a_tool_that_is_always_denied_is_not_offered(rules: list[ApprovalRule], offered: set[str]) -> None:
    assert set(names(tool_specs(["code", "file_read", "shell"], [rules]))) == offered


def test_the_schema_of_the_result_becomes_that_of_finish() -> None:
    schema = {"type": "object", "properties": {"total": {"type": "integer"}}}
    finish = control_specs(schema)[-1]
    assert finish.name == "finish"
    assert finish.parameters["properties"]["output"] == schema
    assert finish.parameters["required"] == ["summary", "output"]
    assert control_specs()[-1].parameters["required"] == ["summary"]


def test_a_schema_with_references_is_told_in_words() -> None:
    schema = {"$ref": "#/$defs/A", "$defs": {"A": {"type": "string"}}}
    output = control_specs(schema)[-1].parameters["properties"]["output"]
    assert list(output) == ["description"]
    assert json.dumps(schema) in output["description"]


def test_an_output_has_a_bound() -> None:
    FinishArgs(summary="x", output="x" * 60_000).check("$")
    with pytest.raises(InvalidInput, match="70002 bytes"):
        FinishArgs(summary="x", output="x" * 70_000).check("$")
    with pytest.raises(InvalidInput, match="absolute"):
        FinishArgs(summary="x", files=["/etc/passwd"]).check("$")


def test_the_fields_of_a_tool_fit_into_a_line() -> None:
    assert usage_of(TOOLS["file_read"]) == (
        "path: string of at most 512 characters (required), max_bytes: integer from 1 to 1000000, "
        "offset: integer from 0 to 9007199254740991"
    )
    assert usage_of(CONTROL["plan"]) == "steps: list of {goal, expected, tools} (required)"
    assert usage_of(CONTROL["finish"]).endswith("files: list of string of at most 512 characters, output: any JSON")
    for kind in [*TOOLS.values(), *CONTROL.values()]:
        assert all(name in usage_of(kind) for name in kind.__struct_encode_fields__)


def test_specs_can_be_journaled() -> None:
    specs = [*tool_specs(TOOLS, []), *control_specs()]
    assert msgspec.json.decode(msgspec.json.encode(specs), type=list[ToolSpec]) == specs
