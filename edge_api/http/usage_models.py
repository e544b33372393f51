"""Usage of language models in requests and responses."""

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from edge_api.http.request_models import RequestModel
from infra.contract.keys import USAGE_DAYS
from infra.contract.usage import MICROS, RunUsage


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

    @classmethod
    def of(cls, usage: RunUsage) -> "ModelUsage":
        """Return usage as clients see it."""
        return cls(**_shown(usage))


class DayUsage(ModelUsage, frozen=True, kw_only=True):
    """Usage on one day, in UTC."""

    day: str


class UsageReport(msgspec.Struct, frozen=True, kw_only=True):
    """Usage in all runs of the caller, also in deleted ones: of each day that has some, newest first, and in total.

    `unreadable`: days whose sums are damaged; they are not in the total.
    """

    days: list[DayUsage]
    total: ModelUsage
    unreadable: list[str] | UnsetType = UNSET

    @classmethod
    def of(cls, days: Mapping[date, RunUsage | None]) -> "UsageReport":
        """Return the report on these days."""
        known = {day: usage for day, usage in days.items() if usage is not None}
        return cls(
            days=[DayUsage(day=day.isoformat(), **_shown(usage)) for day, usage in known.items()],
            total=ModelUsage.of(sum(known.values(), RunUsage())),
            unreadable=[day.isoformat() for day in days if day not in known] or UNSET,
        )


class UsageQuery(RequestModel, frozen=True):
    """Time of the report."""

    days: Annotated[
        int, msgspec.Meta(ge=1, le=USAGE_DAYS, description="Number of days, in UTC; the present one is the last.")
    ] = 30


def _shown(usage: RunUsage) -> dict[str, Any]:
    return {
        "exchanges": usage.exchanges,
        "input_tokens": usage.input,
        "output_tokens": usage.output,
        "cached_tokens": usage.cached,
        "reasoning_tokens": usage.reasoning,
        "estimated": usage.estimated,
        # As text, because a float would round large sums.
        "cost": {name: f"{micros // MICROS}.{micros % MICROS:06}" for name, micros in usage.costs.items()},
        "unpriced": usage.unpriced,
    }
