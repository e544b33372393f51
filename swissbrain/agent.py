"""Runs that a model plans: limits, rules of approval, usage of models, calls of tools, and requests to people.

The types repeat the contract of the API, as those of `swissbrain.models`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import msgspec


class Limits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Limits of a run, of all its attempts together; None: the limit of the worker's configuration.

    `turns`: exchanges with models. `cost`: in the currency of the prices. `wall_s`: seconds of work, without waits.
    `repeats`: identical calls with identical results, in a row.
    """

    turns: int | None = None
    tool_calls: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost: float | None = None
    wall_s: float | None = None
    repeats: int | None = None


class ApprovalRule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Rule for the calls of a tool: of all rules that match a call, `deny` wins over `ask`, and `ask` over `allow`.

    `tool`: `*` stands for all tools without a rule of their own that matches. `policy`: `deny`, `ask` (a person decides
    within `expires_s` seconds; else the call is denied, or the run fails: `on_expiry` is `deny` or `fail`) or `allow`.
    `match`: argument → pattern of its whole text, in which `*` stands for any characters.
    """

    tool: str
    policy: str
    match: dict[str, str] | None = None
    expires_s: float = 86_400.0
    on_expiry: str = "deny"


class ModelUsage(msgspec.Struct, frozen=True, kw_only=True):
    """Usage of language models. `cached_tokens` are a part of `input_tokens`, `reasoning_tokens` of `output_tokens`.

    `cost`: amount by currency, in decimals. `unpriced`: number of exchanges whose cost is unknown, because their model
    has no price; `cost` is without them. `estimated`: number of exchanges whose tokens were estimated in part.
    """

    exchanges: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    estimated: int
    cost: dict[str, str]
    unpriced: int


class DayUsage(ModelUsage, frozen=True, kw_only=True):
    """Usage on one day, in UTC, as `2026-11-30`."""

    day: str


class UsageReport(msgspec.Struct, frozen=True, kw_only=True):
    """Usage in all of your runs, also in deleted ones: of each day that has some, newest first, and in total."""

    days: list[DayUsage]
    total: ModelUsage


class CallOutcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Call of an agent that has ended. `text` is what the model has read of its result, `result` its short values.

    `status`: `succeeded`, `failed` or `refused` (it was not executed); `code` and `message` say why. `step`: index of
    the step in the agent's plan. Times are in ms, `started_ms` since the epoch.
    """

    tool: str
    status: str
    text: str
    step: int
    started_ms: int
    duration_ms: int = 0
    code: str = ""
    message: str = ""
    result: dict[str, Any] = {}


class AgentOptions(TypedDict, total=False):
    """Arguments of `create_run` and `run` for a run that a model plans; None means the default of the API.

    `model`: a name of the worker's configuration. `instructions` hold for the whole run, beside the prompt. `tools`:
    names of the tools that the model may use. `limits` and `approvals`: the types of this module, or mappings.
    `output_schema`: JSON Schema of the result's `output`. `strict_plan`: a step may use only the tools that its plan
    named before the run had read untrusted text. `stream`: log the replies of models while they are written.
    `continue_of`: a run of yours that has ended; the new run begins with its files and its conversation.
    """

    model: str | None
    instructions: str | None
    tools: Sequence[str] | None
    approvals: Sequence[ApprovalRule | Mapping[str, Any]] | None
    limits: Limits | Mapping[str, float] | None
    output_schema: Mapping[str, Any] | None
    strict_plan: bool | None
    stream: bool | None
    continue_of: str | None


class OpenRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Request of a waiting run: a `question`, answered by a text, or an `approval` of the call of `tool` with `args`.

    `kind` is `question` or `approval`; `choices` are suggested answers. Without an answer until `expires_ms` the
    request is denied, or fails the run (`on_expiry`: `deny` or `fail`). `truncated`: question, choices or `args` are
    not whole.
    """

    id: str
    kind: str
    question: str
    expires_ms: int
    on_expiry: str
    tool: str | None = None
    args: dict[str, Any] | None = None
    choices: list[str] = []
    truncated: bool = False


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """Open requests of a waiting run, and when it began to wait."""

    requests: list[OpenRequest]
    since_ms: int
