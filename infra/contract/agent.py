"""Settings of an agent run: limits, approval rules, and the tools and models that it may use."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from infra.contract.errors import InvalidInput
from infra.contract.json_schema import check_json_schema
from infra.contract.requests import MAX_EXPIRY_MS, OnExpiry
from infra.contract.tools import TOOLS

MAX_TURNS = 200
"""Largest number of exchanges of a run with models: `claim` reads the whole record of a run."""
MAX_TOOL_CALLS = 500
MAX_RULES = 50
DEFAULT_EXPIRY_S = 24 * 3600.0
ANY_TOOL = "*"
"""Tool of the rules for tools without a rule of their own that matches."""

Policy: TypeAlias = Literal["allow", "ask", "deny"]
LimitName: TypeAlias = Literal["turns", "tool_calls", "input_tokens", "output_tokens", "cost", "wall_s", "repeats"]
ToolName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]


class Limits(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True, omit_defaults=True):
    """Limits of an agent run, of all its attempts together; None: the limit of the configuration.

    `repeats`: identical calls with identical results, in a row.
    """

    turns: Annotated[int, Meta(ge=1, le=MAX_TURNS, description="Exchanges with models.")] | None = None
    tool_calls: Annotated[int, Meta(ge=1, le=MAX_TOOL_CALLS, description="Calls of tools.")] | None = None
    input_tokens: Annotated[int, Meta(ge=1, le=10**9, description="Tokens read by models.")] | None = None
    output_tokens: Annotated[int, Meta(ge=1, le=10**9, description="Tokens written by models.")] | None = None
    cost: Annotated[float, Meta(gt=0, le=10**6, description="Money, in the currency of the prices.")] | None = None
    wall_s: Annotated[float, Meta(gt=0, le=30 * 24 * 3600.0, description="Seconds of work, without waits.")] | None = (
        None
    )
    repeats: Annotated[int, Meta(ge=2, le=100, description="Identical calls with identical results.")] | None = None

    def overridden(self, by: "Limits") -> "Limits":
        """Return these limits, with the limits of `by` in place of those that it sets."""
        given = {name: value for name, value in msgspec.structs.asdict(by).items() if value is not None}
        return msgspec.structs.replace(self, **given)


class ApprovalRule(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True, omit_defaults=True):
    """Rule for the calls of a tool: of all rules that match a call, `deny` wins over `ask`, and `ask` over `allow`.

    `tool`: `*` stands for all tools without a rule of their own that matches. `match`: argument → pattern of its whole
    text, in which `*` stands for any characters; every argument must match, and one that a call lacks does not. A rule
    that allows a program (`shell`, `code`) must give the exact text: there, `*` stands for itself.
    """

    tool: Annotated[str, Meta(pattern=r"^([A-Za-z0-9_.-]{1,64}|\*)$")]
    policy: Annotated[Policy, Meta(description="`deny`: not offered, or refused; `ask`: a person decides; `allow`.")]
    match: (
        Annotated[
            dict[Annotated[str, Meta(min_length=1, max_length=64)], Annotated[str, Meta(max_length=10_000)]],
            Meta(min_length=1, max_length=8),
        ]
        | None
    ) = None
    expires_s: Annotated[
        float, Meta(gt=0, le=MAX_EXPIRY_MS / 1000 - 60, description="Seconds in which a person may decide.")
    ] = DEFAULT_EXPIRY_S
    on_expiry: OnExpiry = "deny"


class AgentOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Part of a run's request that concerns its agent.

    `model`: a configured name. `tools`: names of the tools that it may use; None: all. `output_schema`: JSON Schema of
    the result's `output`. `strict_plan`: a step may use only the tools that its plan named before the run had read
    untrusted text. `stream`: log the replies of models while they are written. `continue_of`: a run of the same user
    that has ended; the new run begins with its files and its conversation.
    """

    model: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    instructions: Annotated[str, Meta(min_length=1, max_length=50_000)] | None = None
    tools: Annotated[list[ToolName], Meta(max_length=64)] | None = None
    approvals: Annotated[list[ApprovalRule], Meta(max_length=MAX_RULES)] = []
    limits: Limits = Limits()
    output_schema: dict[str, Any] | None = None
    strict_plan: bool = False
    stream: bool = True
    continue_of: Annotated[str, Meta(min_length=1, max_length=100, description="Run to go on from.")] | None = None

    def check_options(self, *, has_agent: bool) -> None:
        """Raise InvalidInput for options that nobody would use, and for rules that the types cannot express."""
        given = [name for name, value in _DEFAULTS.items() if getattr(self, name) != value]
        if given and not has_agent:
            message = f"'{given[0]}' is for runs that a model plans; this run has an explicit plan"
            raise InvalidInput(message, f"$.{given[0]}")
        for index, name in enumerate(self.tools or ()):
            check_tool(name, at=f"$.tools[{index}]")
        check_rules(self.approvals, at="$.approvals")
        if self.output_schema is not None:
            check_json_schema(self.output_schema, at="$.output_schema")


def check_tool(name: str, *, at: str) -> None:
    """Raise InvalidInput unless there is a tool of this name."""
    if name not in TOOLS:
        raise InvalidInput(f"unknown tool '{name}'; allowed are {', '.join(sorted(TOOLS))}", at)


def check_rules(rules: Sequence[ApprovalRule], *, at: str) -> None:
    """Raise InvalidInput for a rule that can never match: its tool, or an argument in `match`, does not exist."""
    for index, rule in enumerate(rules):
        if rule.tool == ANY_TOOL:
            known = {name for kind in TOOLS.values() for name in kind.__struct_encode_fields__}
            whose = "no tool has"
        else:
            check_tool(rule.tool, at=f"{at}[{index}].tool")
            known = set(TOOLS[rule.tool].__struct_encode_fields__)
            whose = f"'{rule.tool}' lacks"
        for name in rule.match or ():
            if name not in known:
                message = f"{whose} the argument '{name}'; allowed are {', '.join(sorted(known))}"
                raise InvalidInput(message, f"{at}[{index}].match.{name}")


_DEFAULTS = msgspec.structs.asdict(AgentOptions())
