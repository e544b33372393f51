"""Usage of models, added up: of one write, of a run, or of a day of a user."""

from collections.abc import Mapping
from datetime import date
from typing import Final

import msgspec

from infra.contract.llm import Usage

MICROS: Final = 1_000_000
"""Units of a cost in one unit of its currency."""
DAY_S: Final = 24 * 3600
EPOCH: Final = date(1970, 1, 1)
MAX_ADDED: Final = 2**43
"""Largest number that one write adds to a sum: scripts add exactly below 2^53, and a run has some hundred exchanges."""


class RunUsage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Exchanges with models, their tokens and their cost.

    `cached` is a part of `input`, `reasoning` a part of `output`. `estimated`: number of exchanges whose tokens were
    estimated in part. `costs`: currency → millionths of it. `unpriced`: number of exchanges whose cost is unknown, and
    not in `costs`.
    """

    exchanges: int = 0
    input: int = 0
    output: int = 0
    cached: int = 0
    reasoning: int = 0
    estimated: int = 0
    unpriced: int = 0
    costs: Mapping[str, int] = {}

    @classmethod
    def of(cls, usage: Usage, currency: str | None, *, exchanges: int = 1) -> "RunUsage":
        """Return the usage of exchanges whose costs are in `currency`; None: their models have no price."""
        unpriced = usage.cost_micros is None or (currency is None and usage.cost_micros > 0)
        return cls(
            exchanges=exchanges,
            input=usage.input,
            output=usage.output,
            cached=usage.cached,
            reasoning=usage.reasoning,
            estimated=max(1, exchanges) if usage.estimated else 0,
            unpriced=max(1, exchanges) if unpriced else 0,
            costs={} if unpriced or currency is None else {currency: usage.cost_micros or 0},
        )

    def __add__(self, other: "RunUsage") -> "RunUsage":
        currencies = {*self.costs, *other.costs}
        return RunUsage(
            exchanges=self.exchanges + other.exchanges,
            input=self.input + other.input,
            output=self.output + other.output,
            cached=self.cached + other.cached,
            reasoning=self.reasoning + other.reasoning,
            estimated=self.estimated + other.estimated,
            unpriced=self.unpriced + other.unpriced,
            costs={name: self.costs.get(name, 0) + other.costs.get(name, 0) for name in sorted(currencies)},
        )
