"""Monthly bill from counts: what runs, workers and readers use, and what the services charge for it.

Two designs with one code: `serverless` (API on Lambda, Upstash, workers that scale to zero) and `always_on` (API and
worker on one machine, a managed Redis at a fixed price). Both have the same object store and the same model.
"""

import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from infra.commands import cost_counts as counts

DAYS = 30
HOURS = 24 * DAYS
API_GB, STREAM_GB = 0.5, 0.25
"""Memory of both functions."""
REQUEST_S = 0.1
"""Assumed duration of a request to the function, with its share of cold starts."""
EVENT_BYTES = 105
LOG_IN_REDIS_BYTES = 16 * 1024
"""A smaller log stays in Redis; a larger one becomes an object for each SEGMENT_EVENTS."""
SEGMENT_EVENTS = 10_000
MIN_OBJECT_KB = 128
"""Size as which Exoscale bills a smaller object."""
SLOTS = 8
"""Runs at a time of a worker on Kubernetes."""
COOLDOWN_S = 300
"""Time after which KEDA removes a worker that has nothing to do."""
MAX_NUMBER, MIN_PER = 1e12, 1e-6
"""Bounds of prices, quotas and units: a bill of any use stays a number."""
PRICES = Path(__file__).with_name("prices.toml")


class ServicePrice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Price of a service; `prices.toml` explains the fields."""

    label: str
    price: float
    per: float
    source: str
    free: float = 0.0
    free_daily: float = 0.0
    free_plan: bool = False
    assumed: str = ""

    def cost(self, amount: float) -> float:
        """Return the price of an amount in a month."""
        free = self.free + self.free_daily * DAYS
        billed = max(0.0, amount - free)
        if billed and self.free_plan:
            billed = amount
        return billed / self.per * self.price

    def exceeded_on_day(self, amount: float) -> int | None:
        """Return the day of the month on which the free quota is used up if use is even; None if it suffices."""
        if self.free_daily:
            return 1 if amount / DAYS > self.free_daily else None
        if not self.free or amount <= self.free:
            return None
        return min(DAYS, math.floor(self.free / (amount / DAYS)) + 1)


class MonthlyUse(msgspec.Struct, frozen=True, kw_only=True):
    """Expected use of a month. Numbers without another word are for each run."""

    runs: int
    events: int
    steps: int
    seconds: float
    watchers: float
    reads: int
    webhooks: int
    files: int
    file_kb: int
    retention_days: int
    input_tokens: int
    output_tokens: int
    poll_s: int
    recovery_minutes: int
    schedule_ticks: int
    worker_hours: float | None

    @property
    def busy_hours(self) -> float:
        """Hours of workers that are full."""
        return self.runs * self.seconds / 3600 / SLOTS

    @property
    def hours_of_workers(self) -> float:
        """Hours of workers in the month; if none are given, as if each run found no worker, but one worker in all."""
        if self.worker_hours is not None:
            return self.worker_hours
        return max(self.busy_hours, min(float(HOURS), self.runs * (self.seconds + COOLDOWN_S) / 3600))


class BillLine(msgspec.Struct, frozen=True):
    """One line of a bill."""

    name: str
    label: str
    amount: float
    free: float
    cost: float


class FreeQuota(msgspec.Struct, frozen=True):
    """Free quota of a service, and when it is used up."""

    name: str
    label: str
    amount: float
    free: float
    exceeded_on_day: int | None


class Bill(msgspec.Struct, frozen=True, kw_only=True):
    """Both designs, and what the numbers rest on."""

    usage: MonthlyUse
    worker_hours: float
    redis_commands: dict[str, float]
    serverless: list[BillLine]
    always_on: list[BillLine]
    totals: dict[str, float]
    quotas: list[FreeQuota]
    prices_of: str
    assumed: dict[str, str]
    currency: str = "USD"


def redis_commands(usage: MonthlyUse) -> dict[str, float]:
    """Return the Redis commands of the month by what causes them."""
    runs = usage.runs
    batches = min(usage.events, math.ceil(usage.seconds / counts.BATCH_S))
    return {
        "runs with one step": runs * counts.RUN,
        "further steps": runs * (usage.steps - 1) * counts.STEP,
        "printed lines": runs * batches * counts.BATCH,
        "renewals of leases": runs * math.floor(usage.seconds / counts.RENEWAL_S) * counts.RENEWAL,
        "live readers": _streams(usage) * counts.STREAM,
        "reads of runs": runs * usage.reads * counts.READ,
        "webhooks": runs * usage.webhooks * counts.WEBHOOK,
        "waiting workers": usage.hours_of_workers * counts.IDLE_WORKER_HOUR,
        "autoscaling": _times(usage.poll_s) * counts.KEDA_POLL,
        "recovery ticks": _times(usage.recovery_minutes * 60) * counts.RECOVERY_TICK,
        "ticks of schedules": usage.schedule_ticks * counts.SCHEDULE_TICK,
    }


def bill(usage: MonthlyUse, prices: Mapping[str, ServicePrice]) -> Bill:
    """Return the bill of a month."""
    commands = redis_commands(usage)
    # QStash calls the API for each of its messages.
    messages = usage.schedule_ticks + _times(usage.recovery_minutes * 60) + usage.runs * usage.webhooks
    requests = usage.runs * (1 + usage.reads) + messages
    streams = _streams(usage)
    segments = _segments(usage)
    segment_kb = max(usage.events * EVENT_BYTES / 1000 / max(segments, 1), MIN_OBJECT_KB)
    stored_kb = usage.files * max(usage.file_kb, MIN_OBJECT_KB) + segments * segment_kb
    shared = {
        "s3_gb_months": usage.runs * usage.retention_days / DAYS * stored_kb / 1e6,
        "s3_requests": usage.runs * (usage.files + segments),
        "llm_input_tokens": usage.runs * usage.input_tokens,
        "llm_output_tokens": usage.runs * usage.output_tokens,
    }
    serverless = {
        "redis_commands": sum(commands.values()),
        "lambda_requests": requests + streams,
        "lambda_gb_seconds": requests * REQUEST_S * API_GB + usage.runs * usage.watchers * usage.seconds * STREAM_GB,
        "gateway_requests": requests + streams,
        "qstash_messages": messages,
        "worker_hours": usage.hours_of_workers,
        **shared,
    }
    always_on = {"vm_months": max(1, math.ceil(usage.busy_hours / HOURS)), "managed_redis_months": 1, **shared}
    lines = {
        name: [_line(item, amount, prices) for item, amount in amounts.items()]
        for name, amounts in (("serverless", serverless), ("always_on", always_on))
    }
    quotas = [
        FreeQuota(name, price.label, amount, _free(price), price.exceeded_on_day(amount))
        for name, amount in serverless.items()
        if _free(price := prices[name])
    ]
    used = {name for name, amount in {**serverless, **always_on}.items() if amount}
    return Bill(
        usage=usage,
        worker_hours=usage.hours_of_workers,
        redis_commands=commands,
        serverless=lines["serverless"],
        always_on=lines["always_on"],
        totals={name: sum(line.cost for line in each) for name, each in lines.items()},
        quotas=quotas,
        prices_of=_date(),
        assumed={name: price.assumed for name, price in prices.items() if price.assumed and name in used},
    )


def default_prices() -> dict[str, ServicePrice]:
    """Return the prices that come with this release."""
    document = tomllib.loads(PRICES.read_text(encoding="utf-8"))
    return {name: msgspec.convert(entry, ServicePrice) for name, entry in document.items() if name != "date"}


def overridden(prices: Mapping[str, ServicePrice], text: str) -> dict[str, ServicePrice]:
    """Return prices with the entries of a TOML document in their place; it may be a changed copy of ours.

    Raises ValueError, with one line, for a document that is not one, unknown names and numbers out of range.
    """
    try:
        document = tomllib.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    document.pop("date", None)
    try:
        entries = msgspec.convert(document, dict[str, dict[str, Any]])
    except msgspec.ValidationError as exc:
        raise ValueError(f"each price is a table with the fields that differ: {exc}") from None
    changed = dict(prices)
    for name, fields in entries.items():
        changed |= replaced(changed, name, fields)
    return changed


def replaced(prices: Mapping[str, ServicePrice], name: str, fields: Mapping[str, object]) -> dict[str, ServicePrice]:
    """Return prices with fields of one of them replaced; a given price is no longer assumed.

    Raises ValueError, with one line.
    """
    if name not in prices:
        raise ValueError(f"there is no price '{name}'; there are {', '.join(sorted(prices))}")
    known = msgspec.structs.asdict(prices[name]) | ({"assumed": ""} if "price" in fields else {})
    try:
        made = msgspec.convert(known | dict(fields), ServicePrice)
    except msgspec.ValidationError as exc:
        raise ValueError(f"'{name}': {exc}") from None
    numbers = {"price": made.price, "per": made.per, "free": made.free, "free_daily": made.free_daily}
    for field, value in numbers.items():
        low = MIN_PER if field == "per" else 0
        if not low <= value <= MAX_NUMBER:  # no comparison holds for NaN
            raise ValueError(f"'{field}' of '{name}' must be a number from {low:g} to {MAX_NUMBER:g}")
    return {**prices, name: made}


def _times(every_s: float) -> float:
    return DAYS * 86_400 / every_s if every_s else 0.0


def _streams(usage: MonthlyUse) -> float:
    return usage.runs * usage.watchers * math.ceil(usage.seconds / counts.STREAM_S)


def _segments(usage: MonthlyUse) -> int:
    """Return the number of objects with the log of a run."""
    return math.ceil(usage.events / SEGMENT_EVENTS) if usage.events * EVENT_BYTES > LOG_IN_REDIS_BYTES else 0


def _free(price: ServicePrice) -> float:
    return price.free + price.free_daily * DAYS


def _line(name: str, amount: float, prices: Mapping[str, ServicePrice]) -> BillLine:
    price = prices[name]
    return BillLine(name, price.label, amount, _free(price), price.cost(amount))


def _date() -> str:
    return str(tomllib.loads(PRICES.read_text(encoding="utf-8"))["date"])
