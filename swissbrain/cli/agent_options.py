"""Options of `run` for a run that a model plans."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from swissbrain.agent import AgentOptions
from swissbrain.cli.completion import run_ids
from swissbrain.cli.errors import CommandError
from swissbrain.cli.limits import limits_of
from swissbrain.cli.plan_file import read_text, read_value

Model = Annotated[str | None, typer.Option(metavar="NAME", help="Model of the worker's configuration.")]
Instructions = Annotated[
    str | None,
    typer.Option(metavar="TEXT|FILE", help="What holds for the whole run. A single word is the name of a file."),
]
Tools = Annotated[
    list[str] | None, typer.Option(metavar="NAME", help="Tool that the model may use. Several are allowed.")
]
ApprovalsFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="JSON or YAML file with rules: which calls people approve.")
]
SchemaFile = Annotated[Path | None, typer.Option(metavar="FILE", help="JSON or YAML file with the result's schema.")]
StrictPlan = Annotated[
    bool, typer.Option("--strict-plan", help="Allow each step only the tools that the plan named for it.")
]
ContinueOf = Annotated[
    str | None,
    typer.Option(
        "--continue",
        metavar="RUN",
        help="Begin with the files and the conversation of a run that has ended.",
        autocompletion=run_ids,
    ),
]
Stream = Annotated[bool, typer.Option("--stream/--no-stream", help="Log replies of models while they are written.")]


def agent_options(
    model: str | None,
    instructions: str | None,
    tools: Sequence[str] | None,
    limits: list[str] | None,
    approvals: Path | None,
    output_schema: Path | None,
    continue_of: str | None,
    *,
    strict_plan: bool,
    stream: bool,
) -> AgentOptions:
    """Return the options as arguments of the client. Raises BadParameter, and CommandError for a file."""
    return AgentOptions(
        model=model,
        instructions=None if instructions is None else _instructions(instructions),
        tools=tools or None,
        limits=limits_of(limits),
        approvals=None if approvals is None else _rules(approvals),
        output_schema=None if output_schema is None else _schema(output_schema),
        # The defaults of the API.
        strict_plan=True if strict_plan else None,
        stream=None if stream else False,
        continue_of=continue_of,
    )


def _instructions(text: str) -> str:
    """Return the instructions, from a file if the text is its name. A single word is never meant as instructions."""
    try:
        is_file = Path(text).is_file()
    except (OSError, ValueError):  # too long, or with a null character
        is_file = False
    return read_text(Path(text)) if is_file or len(text.split()) == 1 else text


def _rules(path: Path) -> list[dict[str, Any]]:
    value = read_value(path)
    rules = value.get("approvals") if isinstance(value, dict) else value
    if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
        raise CommandError(f"{path} holds no list of rules")
    return rules


def _schema(path: Path) -> dict[str, Any]:
    value = read_value(path)
    if not isinstance(value, dict):
        raise CommandError(f"{path} holds no object, which a JSON Schema is")
    return value
