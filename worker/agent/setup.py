"""Start of an agent run: everything that it was begun with, in one journal entry."""

import secrets
from collections.abc import Mapping, Sequence

from infra.contract.errors import InvalidInput
from infra.contract.files import FileInfo
from infra.contract.llm import ModelChoice
from infra.contract.runs import RunError, RunSpec
from worker.agent import prompts
from worker.agent.entries import Setup
from worker.agent.limits import effective
from worker.agent.output_schema import SchemaError, check_schema
from worker.agent.schemas import tool_specs
from worker.agent.settings import AgentSettings
from worker.registry import REGISTRY
from worker.run.strategy import StepFailed
from worker.toolkit.base import Tool

MAX_LISTED_FILES = 200


async def check_output_schema(spec: RunSpec) -> None:
    """Raise StepFailed if the run has an output schema that cannot be used."""
    if spec.output_schema is not None:
        try:
            await check_schema(spec.output_schema)
        except SchemaError as exc:
            raise StepFailed(RunError(code="invalid_schema", message=str(exc))) from None


def build_setup(
    spec: RunSpec,
    settings: AgentSettings,
    models: Sequence[ModelChoice],
    files: Sequence[FileInfo],
    continued_task: str = "",
    registered: Mapping[str, Tool] = REGISTRY,
) -> Setup:
    """Return the setup of a run that begins now. `continued_task`: first message of the conversation that it continues.

    `registered`: tools of this worker. Those that are not ready are offered only to a run that names them.
    Raises StepFailed if the run cannot begin as it is asked for.
    """
    rules = [settings.approvals, spec.approvals]
    limits = effective(spec.limits, settings.caps)
    chosen = _models(spec.model, models)
    if limits.cost is not None and (unpriced := [model.name for model in chosen if model.price is None]):
        message = f"the run has a limit of cost, but the model '{unpriced[0]}' has no price (LLM_PRICES)"
        raise StepFailed(RunError(code="no_price", message=message))
    try:
        ready = {name for name, tool in registered.items() if tool.ready}
        notes = {name: tool.notes for name, tool in registered.items()}
        tools = tool_specs(ready if spec.tools is None else spec.tools, rules, notes)
    except InvalidInput as exc:  # the API that took the run is of a later release
        raise StepFailed(RunError(code="invalid_input", message=str(exc))) from None
    task = prompts.render("task", prompt=spec.prompt or "", files=_listing(files))
    marker = secrets.token_hex(8)
    return Setup(
        system=prompts.render("system", instructions=spec.instructions or "", marker=marker),
        task=continued_task or task,
        follow_up=task if continued_task else "",
        prompts=prompts.VERSION,
        tools=tools,
        models=chosen,
        approvals=rules,
        limits=limits,
        marker=marker,
        context_tokens=settings.context_tokens,
        output_tokens=settings.output_tokens,
        output_schema=spec.output_schema,
        strict_plan=spec.strict_plan,
        stream=spec.stream,
    )


def _models(wanted: str | None, models: Sequence[ModelChoice]) -> Sequence[ModelChoice]:
    """Return the models to ask, the wanted one first."""
    if wanted is None:
        return models
    named = [model for model in models if model.name == wanted]
    if not named:
        names = ", ".join(model.name for model in models)
        message = f"the model '{wanted}' is not configured (LLM_MODEL, LLM_FALLBACKS); configured are {names}"
        raise StepFailed(RunError(code="no_model", message=message))
    return [*named, *(model for model in models if model.name != wanted)]


def _listing(files: Sequence[FileInfo]) -> str:
    """Return the files of the workspace for the model, a line each."""
    lines = [f"{file.path} ({file.size_bytes} bytes)" for file in files[:MAX_LISTED_FILES]]
    if len(files) > MAX_LISTED_FILES:
        lines.append(f"… and {len(files) - MAX_LISTED_FILES} more; call file_list for all")
    return "\n".join(lines)
