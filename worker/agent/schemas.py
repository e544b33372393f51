"""Tools as models see them: names, descriptions, JSON Schemas of the arguments.

Beside the tools of the registry, a model has control tools, which change the course of the run and nothing else.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from infra.contract.agent import check_tool
from infra.contract.errors import InvalidInput
from infra.contract.llm import ToolSpec
from infra.contract.paths import workspace_path
from infra.contract.tool_args import Path, ToolArgs
from infra.contract.tools import TOOLS
from worker.agent.entries import GoalStep
from worker.agent.policy import RuleLists, is_denied

MAX_PLAN_STEPS = 50
MAX_OUTPUT_BYTES = 64 * 1024
"""Largest `output` of `finish`, as JSON."""


class PlanArgs(ToolArgs, frozen=True):
    """State the plan: the steps that lead to the goal, in order. A step has a goal, the result that shows that it is
    reached, and the tools that it needs."""

    steps: Annotated[list[GoalStep], Meta(min_length=1, max_length=MAX_PLAN_STEPS)]


class StepDoneArgs(ToolArgs, frozen=True):
    """Declare the current step of the plan done. The next step begins."""

    outcome: Annotated[str, Meta(min_length=1, max_length=4000, description="Outcome of the step, with its evidence.")]


class ReplanArgs(ToolArgs, frozen=True):
    """Ask for a new plan of the remaining work, because the current one does not lead to the goal."""

    reason: Annotated[str, Meta(min_length=1, max_length=4000, description="Why the plan does not work.")]
    learned: Annotated[str, Meta(max_length=4000, description="Facts that the new plan should take into account.")] = ""


class AskUserArgs(ToolArgs, frozen=True):
    """Ask the user a question. The run waits for the answer, perhaps for days: ask only what only the user can know."""

    question: Annotated[str, Meta(min_length=1, max_length=4000, description="Question, as one message.")]
    choices: Annotated[
        Sequence[Annotated[str, Meta(min_length=1, max_length=200)]],
        Meta(max_length=10, description="Suggested answers; the user may give another one."),
    ] = ()


class FinishArgs(ToolArgs, frozen=True):
    """End the run with its result. It must be the last call of a reply."""

    summary: Annotated[str, Meta(min_length=1, max_length=20_000, description="Result in words, for the user.")]
    files: Annotated[
        Sequence[Path],
        Meta(max_length=100, description="Existing files that belong to the result."),
    ] = ()
    output: Annotated[Any, Meta(description="Result as JSON, if the task asks for one.")] | UnsetType = UNSET

    def check(self, at: str) -> None:
        for index, path in enumerate(self.files):
            workspace_path(path, field=f"{at}.files[{index}]")
        size = 0 if self.output is UNSET else len(msgspec.json.encode(self.output))
        if size > MAX_OUTPUT_BYTES:
            message = f"the output has {size} bytes as JSON; allowed are {MAX_OUTPUT_BYTES}: write it into a file"
            raise InvalidInput(message, f"{at}.output")


CONTROL: Mapping[str, type[ToolArgs]] = {
    "plan": PlanArgs,
    "step_done": StepDoneArgs,
    "replan": ReplanArgs,
    "ask_user": AskUserArgs,
    "finish": FinishArgs,
}
"""Control tools by name."""


def tool_specs(
    names: Collection[str], rules: RuleLists, notes: Mapping[str, Mapping[str, str]] | None = None
) -> list[ToolSpec]:
    """Return the tools of these names, sorted by name, without those whose every call is denied.

    `notes`: for each tool, sentences about its arguments (`Tool.notes`). Raises InvalidInput for unknown names.
    """
    wanted = sorted(set(names))
    for name in wanted:
        check_tool(name, at="$.tools")
    specs = [_spec(name, TOOLS[name]) for name in wanted if not is_denied(name, rules)]
    return [_with_notes(spec, (notes or {}).get(spec.name, {})) for spec in specs]


def control_specs(output_schema: Mapping[str, Any] | None = None) -> list[ToolSpec]:
    """Return the control tools. With a schema for the result, `finish` needs an `output` of that schema."""
    specs = [_spec(name, kind) for name, kind in CONTROL.items()]
    if output_schema is None:
        return specs
    finish = specs.pop()
    # References of an embedded schema would point into the schema around it.
    text = json.dumps(output_schema, ensure_ascii=False)
    output = {"description": f"Result, by this JSON Schema: {text}"} if '"$' in text else output_schema
    parameters = {
        **finish.parameters,
        "properties": {**finish.parameters["properties"], "output": output},
        "required": [*finish.parameters["required"], "output"],
    }
    return [*specs, msgspec.structs.replace(finish, parameters=parameters)]


def _with_notes(spec: ToolSpec, notes: Mapping[str, str]) -> ToolSpec:
    """Add sentences to the descriptions of arguments; leave out arguments whose sentence is empty."""
    if not notes:
        return spec
    properties = {name: field for name, field in spec.parameters["properties"].items() if notes.get(name) != ""}
    for name in notes.keys() & properties.keys():
        field = properties[name]
        properties[name] = {**field, "description": f"{field['description']} {notes[name]}"}
    return msgspec.structs.replace(spec, parameters={**spec.parameters, "properties": properties})


def usage_of(kind: type[ToolArgs]) -> str:
    """Return the fields of a tool's arguments in one line, such as `path: string (required), max_bytes: integer`."""
    parameters = _parameters(kind)
    required = parameters.get("required", ())
    fields = parameters.get("properties", {})
    return ", ".join(f"{name}: {_type(field)}{' (required)' * (name in required)}" for name, field in fields.items())


def _type(field: Mapping[str, Any]) -> str:
    if "enum" in field:
        return " or ".join(json.dumps(value) for value in field["enum"])
    kinds = field.get("type", "any JSON")
    if kinds == "array":
        items = field.get("items", {})
        inner = f"{{{', '.join(items['properties'])}}}" if "properties" in items else _type(items)
        return f"list of {inner}"
    return f"{kinds}{_bounds(field)}"


def _bounds(field: Mapping[str, Any]) -> str:
    """Return the bounds of a field's value, such as ` from 1 to 100`."""
    low, above = field.get("minimum"), field.get("exclusiveMinimum")
    high, chars = field.get("maximum"), field.get("maxLength")
    text = f" from {low}" if low is not None else f" above {above}" if above is not None else ""
    text += f" to {high:g}" if isinstance(high, float) else f" to {high}" if high is not None else ""
    return text + (f" of at most {chars} characters" if chars is not None else "")


@cache  # a schema takes longer to build than the rest of a request
def _spec(name: str, kind: type[ToolArgs]) -> ToolSpec:
    description = " ".join((kind.__doc__ or "").split())
    return ToolSpec(name=name, description=description, parameters=_parameters(kind))


def _parameters(kind: type[ToolArgs]) -> dict[str, Any]:
    """Return the schema of a tool's arguments without references, titles and its description."""
    schema = msgspec.json.schema(kind)
    inlined: dict[str, Any] = _inlined(schema, schema.get("$defs", {}))
    del inlined["description"]
    return inlined


def _inlined(value: Any, parts: Mapping[str, Any]) -> Any:
    """Replace the references of a schema by what they refer to; a struct never contains itself."""
    if isinstance(value, list | tuple):
        return [_inlined(item, parts) for item in value]
    if not isinstance(value, dict):
        return value
    if "$ref" in value:
        return _inlined(parts[value["$ref"].rpartition("/")[2]], parts)
    return {
        name: {field: _inlined(inner, parts) for field, inner in item.items()}
        if name == "properties"
        else _inlined(item, parts)
        for name, item in value.items()
        if name not in {"$defs", "title"}
    }
