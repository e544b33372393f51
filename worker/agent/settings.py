"""Settings of the agent, read from environment variables at the start of a worker."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from infra.contract.agent import MAX_TOOL_CALLS, MAX_TURNS, ApprovalRule, Limits, check_rules
from infra.contract.errors import InvalidInput
from infra.settings import Env, SettingsError

T = TypeVar("T")

CAPS = Limits(
    turns=MAX_TURNS,
    tool_calls=MAX_TOOL_CALLS,
    input_tokens=20_000_000,
    output_tokens=1_000_000,
    wall_s=24 * 3600.0,
    repeats=5,
)


@dataclass(frozen=True)
class AgentSettings:
    """Settings of agent runs.

    `caps`: limits that a run gets at most, and by default. `approvals`: rules for every run. `context_tokens`: size of
    the context of the models. `output_tokens`: longest reply. `delta_s`: seconds in which pieces of a reply are joined.
    """

    caps: Limits = CAPS
    approvals: Sequence[ApprovalRule] = ()
    context_tokens: int = 128_000
    output_tokens: int = 8_192
    delta_s: float = 0.45

    @classmethod
    def from_env(cls, env: Env) -> "AgentSettings":
        """Read `AGENT_LIMITS AGENT_APPROVALS LLM_CONTEXT_TOKENS LLM_OUTPUT_TOKENS LLM_DELTA_MS`.

        Raises SettingsError.
        """
        caps = _decoded(env, "AGENT_LIMITS", Limits, '{"turns": 50, "cost": 2.5}')
        approvals = _decoded(env, "AGENT_APPROVALS", list[ApprovalRule], '[{"tool": "shell", "policy": "ask"}]')
        try:
            check_rules(approvals or (), at="AGENT_APPROVALS")
        except InvalidInput as exc:
            raise SettingsError(f"{exc.field}: {exc}") from None
        settings = cls(
            caps=CAPS.overridden(caps or Limits()),
            approvals=approvals or (),
            context_tokens=env.integer("LLM_CONTEXT_TOKENS", cls.context_tokens, low=4_000, high=10_000_000),
            output_tokens=env.integer("LLM_OUTPUT_TOKENS", cls.output_tokens, low=256, high=1_000_000),
            delta_s=env.integer("LLM_DELTA_MS", 450, low=50, high=10_000) / 1000,
        )
        if settings.output_tokens * 2 > settings.context_tokens:
            raise SettingsError("LLM_OUTPUT_TOKENS must be at most half of LLM_CONTEXT_TOKENS")
        return settings


def _decoded(env: Env, name: str, kind: type[T], example: str) -> T | None:
    text = env.optional(name)
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise SettingsError(f"{name} must be JSON such as {example}: {exc}") from None
