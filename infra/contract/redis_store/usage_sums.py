"""Sums of usage as Redis stores them: one number for each name, costs with their currency."""

from collections.abc import Mapping

import msgspec

from infra.contract.usage import MAX_ADDED, RunUsage

_COST_PREFIX = "cost:"
_COUNTS = tuple(name for name in RunUsage.__struct_fields__ if name != "costs")


def encode(usage: RunUsage, first_day: int) -> str:
    """Return usage as the argument of a script whose further keys are those of the days from `first_day` on."""
    added = {name: min(getattr(usage, name), MAX_ADDED) for name in _COUNTS if getattr(usage, name)}
    added |= {f"{_COST_PREFIX}{name}": min(micros, MAX_ADDED) for name, micros in usage.costs.items()}
    return msgspec.json.encode({"first_day": first_day, "add": added}).decode()


def decode(sums: Mapping[str, int]) -> RunUsage:
    """Return usage from its stored sums, by their names."""
    costs = {name.removeprefix(_COST_PREFIX): sums[name] for name in sorted(sums) if name.startswith(_COST_PREFIX)}
    return RunUsage(costs=costs, **{name: sums[name] for name in _COUNTS if name in sums})
