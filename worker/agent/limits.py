"""Limits of an agent run, computed from its turns: a run that was killed anywhere stops at the same place."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from infra.contract.agent import MAX_TOOL_CALLS, MAX_TURNS, LimitName, Limits
from infra.contract.events import LimitNear
from infra.contract.llm import ModelChoice, Usage
from worker.agent.entries import CallRecord, FailedExchanges, Turn
from worker.agent.schemas import CONTROL

MIN_OUTPUT_TOKENS = 256
"""A reply is not shortened below this number of tokens: it would be cut before it is of use."""
NEAR = 0.8
NO_CAPS = Limits()
NO_FAILURES = FailedExchanges()
_UNITS: Mapping[LimitName, str] = {
    "turns": "exchanges with models",
    "tool_calls": "calls of tools",
    "input_tokens": "input tokens",
    "output_tokens": "output tokens",
    "cost": "of the currency of the prices",
    "wall_s": "seconds of work",
    "repeats": "identical calls with identical results in a row",
}
_MOST: Mapping[str, int] = {"turns": MAX_TURNS, "tool_calls": MAX_TOOL_CALLS}


@dataclass(frozen=True)
class Totals:
    """Amounts that a run has used, over all its attempts.

    `turns`: all exchanges with a reply, with plans and summaries. `usage` and `wall_ms` include exchanges without one.
    `tool_calls`: executed calls, without control tools.
    `wall_ms`: ms in exchanges and calls; waits for people do not count. `repeats`: longest sequence of identical calls
    with identical results.
    """

    turns: int = 0
    tool_calls: int = 0
    usage: Usage = field(default_factory=Usage)
    wall_ms: int = 0
    repeats: int = 0

    @classmethod
    def of(cls, turns: Sequence[Turn], failed: FailedExchanges = NO_FAILURES) -> "Totals":
        """Add up turns, of which the last one may be under way, and exchanges without a reply."""
        records = [record for turn in turns for record in turn.records]
        return cls(
            turns=len(turns),
            tool_calls=sum(record.status != "refused" and record.tool not in CONTROL for record in records),
            usage=sum((turn.exchange.usage for turn in turns), failed.usage),
            wall_ms=failed.ms + sum(turn.exchange.ms for turn in turns) + sum(record.duration_ms for record in records),
            repeats=max((count for _, _, _, count in repetitions(turns)), default=0),
        )

    def used(self) -> Mapping[LimitName, float]:
        """Return the amount of each limit. A cost that is unknown counts as 0."""
        return {
            "turns": self.turns,
            "tool_calls": self.tool_calls,
            "input_tokens": self.usage.input,
            "output_tokens": self.usage.output,
            "cost": (self.usage.cost_micros or 0) / 1_000_000,
            "wall_s": self.wall_ms / 1000,
            "repeats": self.repeats,
        }


@dataclass(frozen=True)
class LimitReached:
    """Limit that ends a run. `message` says what was used and allowed, and how the run can be continued."""

    name: LimitName
    used: float
    allowed: float
    message: str

    @property
    def code(self) -> str:
        """Code of the run's error, such as `limit_turns`."""
        return f"limit_{self.name}"


def effective(asked: Limits, caps: Limits) -> Limits:
    """Return the limits of a run: those it asks for, but none above the limits of the configuration.

    `repeats` is no amount that costs something: there, the configuration gives only the default.
    """
    values = {}
    for name, cap in msgspec.structs.asdict(caps).items():
        own = getattr(asked, name)
        values[name] = cap if own is None else own if cap is None or name == "repeats" else min(own, cap)
    return Limits(**values)


def worst_case(models: Sequence[ModelChoice], input_tokens: int, output_tokens: int) -> Usage:
    """Return the usage that one exchange has at most, with the dearest of the models that may be asked.

    The cost is None if the price of one of them is unknown.
    """
    costs = [model.cost_micros(input_tokens=input_tokens, output_tokens=output_tokens) for model in models]
    known = [cost for cost in costs if cost is not None]
    cost = max(known, default=0) if len(known) == len(costs) else None
    return Usage(input=input_tokens, output=output_tokens, cost_micros=cost)


def output_allowance(
    limits: Limits, totals: Totals, output_tokens: int, *, models: Sequence[ModelChoice] = (), input_tokens: int = 0
) -> int:
    """Return the number of tokens that the next reply may have: `output_tokens`, or less if the limits leave less.

    `models` and `input_tokens` of the next exchange are needed for the limit of cost. A reply is not shortened below
    MIN_OUTPUT_TOKENS: if the limits leave less, the worst case of the exchange reaches a limit (`reached`).
    """
    left = output_tokens
    if limits.output_tokens is not None:
        left = min(left, limits.output_tokens - totals.usage.output)
    least = min(MIN_OUTPUT_TOKENS, output_tokens)
    while left > least and _cost(limits, totals, worst_case(models, input_tokens, left), NO_CAPS) is not None:
        left = left * 3 // 4
    return max(left, least)


def reached(
    limits: Limits, totals: Totals, worst: Usage | None = None, *, caps: Limits = NO_CAPS
) -> LimitReached | None:
    """Return the limit that does not allow another exchange; None if all do.

    `worst` is the worst case of that exchange (`worst_case`); without it, a limit counts as reached once it is used up.
    All calls of tools that are allowed may be used: a run is not ended by their limit before it wants another one, see
    `call_reached`. `caps`: limits of the configuration, which no run may exceed.
    """
    used = totals.used()
    next_exchange = worst or Usage(input=1, output=1)
    needed: Mapping[LimitName, float] = {
        "turns": 1,
        "tool_calls": 0,
        "input_tokens": next_exchange.input,
        "output_tokens": next_exchange.output,
    }
    for name, more in needed.items():
        allowed = getattr(limits, name)
        if allowed is not None and used[name] + more > allowed:
            return _reached(name, used[name], allowed, more, caps=caps)
    return _cost(limits, totals, worst, caps) or _used_up(limits, totals, caps)


def call_reached(limits: Limits, totals: Totals, *, caps: Limits = NO_CAPS) -> LimitReached | None:
    """Return the limit that does not allow another call of a tool; None if all do. Control tools are always allowed."""
    if limits.tool_calls is not None and totals.tool_calls >= limits.tool_calls:
        return _reached("tool_calls", totals.tool_calls, limits.tool_calls, caps=caps)
    return _used_up(limits, totals, caps)


def out_of_time(limits: Limits, totals: Totals, *, caps: Limits = NO_CAPS) -> LimitReached:
    """Return the limit that ended an exchange, which took all the time that `totals` had left."""
    used, allowed = totals.wall_ms / 1000, limits.wall_s or 0.0
    return _reached("wall_s", used, allowed, allowed - used, caps=caps)


def near(limits: Limits, before: Totals, after: Totals) -> list[LimitNear]:
    """Return an event for each limit of which four fifths were used up between two totals of a run."""
    found = []
    for name, used in after.used().items():
        allowed = getattr(limits, name)
        if allowed is not None and before.used()[name] < NEAR * allowed <= used:
            found.append(LimitNear(limit=name, used=used, allowed=allowed))
    return found


def repetitions(turns: Sequence[Turn]) -> Iterator[tuple[int, int, CallRecord, int]]:
    """Yield (exchange, index of the call, record, number of equal calls in a row up to this one) for each record.

    The number is 0 for a record without a fingerprint. Counting starts again after a message of a user and after a
    control tool that was successful; refused calls without a fingerprint change nothing.
    """
    last, count = "", 0
    for turn in turns:
        if turn.inbox:
            last, count = "", 0
        for index, record in enumerate(turn.records):
            if record.fingerprint:
                count = count + 1 if record.fingerprint == last else 1
                last = record.fingerprint
            elif record.status == "succeeded":
                last, count = "", 0
            yield turn.n, index, record, count if record.fingerprint else 0


def _used_up(limits: Limits, totals: Totals, caps: Limits) -> LimitReached | None:
    """Return a limit whose amount is known only afterwards, and is used up."""
    used = totals.used()
    names: tuple[LimitName, ...] = ("wall_s", "repeats")
    for name in names:
        allowed = getattr(limits, name)
        if allowed is not None and used[name] >= allowed:
            return _reached(name, used[name], allowed, caps=caps)
    return None


def _cost(limits: Limits, totals: Totals, worst: Usage | None, caps: Limits) -> LimitReached | None:
    if limits.cost is None:
        return None
    spent = totals.usage.cost_micros
    more = worst.cost_micros if worst else 1
    if spent is None or more is None:
        message = (
            f"the limit `cost` of {_number(limits.cost)} cannot be kept, because the price of a model is unknown. Set "
            "it in LLM_PRICES of the worker, or start a run without this limit"
        )
        return LimitReached("cost", (spent or 0) / 1_000_000, limits.cost, message)
    if spent + more > limits.cost * 1_000_000:
        return _reached("cost", spent / 1_000_000, limits.cost, more / 1_000_000, caps=caps)
    return None


def _reached(name: LimitName, used: float, allowed: float, more: float = 0, *, caps: Limits) -> LimitReached:
    message = f"the run has used {_number(used)} of {_number(allowed)} {_UNITS[name]} (limit `{name}`)"
    if used < allowed:
        message += f", and its next exchange may need {_number(more)}"
    most = _MOST.get(name)
    cap = None if name == "repeats" else getattr(caps, name)
    if most is not None and allowed >= most:
        message += ". No run may use more; its files and its log are kept"
    elif cap is not None and allowed >= cap:
        message += ". Its worker allows no run more (AGENT_LIMITS); its files and its log are kept"
    else:
        most = min((bound for bound in (most, cap) if bound is not None), default=None)
        wanted: Any = max(allowed * 2, used + more)  # twice the limit may still be less than one exchange needs
        higher = wanted if most is None else min(wanted, most)
        raised = json.dumps({"limits": {name: higher}})
        command = f"swissbrain retry RUN --limit {name}={higher}"
        message += f". To go on from here, retry the run with a higher limit: '{command}', or {raised} to the API"
    return LimitReached(name, used, allowed, message)


def _number(value: float) -> str:
    return f"{value:,.6f}".rstrip("0").rstrip(".") if isinstance(value, float) else f"{value:,}"
