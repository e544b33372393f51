"""Command `swissbrain cost`: the bill of a month from measured counts, beside a design that is always on."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from infra.commands.cost_model import (
    DAYS,
    Bill,
    BillLine,
    MonthlyUse,
    ServicePrice,
    bill,
    default_prices,
    overridden,
    replaced,
)
from infra.commands.running import say
from swissbrain.cli.errors import CommandError
from swissbrain.cli.times import seconds

RUN_S = 30.0
MAX_RUN_S = DAYS * 86_400
MAX_COUNT = 10**9
MAX_PRICES_BYTES = 64 * 1024


def cost(
    runs: Annotated[int, typer.Option(help="Runs in a month.", min=0, max=MAX_COUNT)],
    events: Annotated[int, typer.Option(help="Lines that the programs of a run print.", min=0, max=10**7)] = 20,
    steps: Annotated[
        int, typer.Option(help="Steps of a run; an exchange with a model counts as four.", min=1, max=10_000)
    ] = 1,
    duration: Annotated[
        float | None, typer.Option(parser=seconds, metavar="DURATION", help="Time of a run; 30s by default.")
    ] = None,
    watchers: Annotated[float, typer.Option(help="Live readers of a run.", min=0, max=10_000)] = 1.0,
    reads: Annotated[int, typer.Option(help="Requests that read a run.", min=0, max=10_000)] = 2,
    webhooks: Annotated[int, typer.Option(help="Events of a run for its webhook.", min=0, max=10_000)] = 0,
    files: Annotated[int, typer.Option(help="Files that a run leaves.", min=0, max=10_000)] = 1,
    file_kb: Annotated[int, typer.Option(help="Size of such a file.", min=0, max=10**6)] = 100,
    retention_days: Annotated[int, typer.Option(help="Days for which a run is kept.", min=1, max=3650)] = 30,
    input_tokens: Annotated[int, typer.Option(help="Tokens that a run sends to the model.", min=0, max=10**9)] = 0,
    output_tokens: Annotated[int, typer.Option(help="Tokens that the model replies.", min=0, max=10**9)] = 0,
    worker_hours: Annotated[
        float | None,
        typer.Option(help="Hours of workers; else as if each run started one.", min=0, max=10**6),
    ] = None,
    poll: Annotated[int, typer.Option(help="Seconds between polls of KEDA; 0: without KEDA.", min=0, max=86_400)] = 60,
    recovery: Annotated[int, typer.Option(help="Minutes between recovery ticks; 0: none.", min=0, max=1440)] = 0,
    ticks: Annotated[int, typer.Option(help="Ticks of schedules, beside their runs.", min=0, max=MAX_COUNT)] = 0,
    price: Annotated[
        list[str] | None, typer.Option(metavar="NAME=USD", help="Your price of a service; can be repeated.")
    ] = None,
    prices: Annotated[
        Path | None, typer.Option(metavar="FILE", help="TOML file with your prices and free quotas.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compute the bill of a month from measured counts, beside a design that is always on."""
    run_s = RUN_S if duration is None else duration
    if run_s > MAX_RUN_S:
        raise CommandError("--duration is at most 30d, the month")
    usage = MonthlyUse(
        runs=runs,
        events=events,
        steps=steps,
        seconds=run_s,
        watchers=watchers,
        reads=reads,
        webhooks=webhooks,
        files=files,
        file_kb=file_kb,
        retention_days=retention_days,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        poll_s=poll,
        recovery_minutes=recovery,
        schedule_ticks=ticks,
        worker_hours=worker_hours,
    )
    made = bill(usage, _prices(prices, price or []))
    if json:
        say(msgspec.json.encode(made).decode())
        return
    for line in _shown(made):
        say(line)


def _prices(file: Path | None, single: Sequence[str]) -> dict[str, ServicePrice]:
    """Return our prices with the given ones in their place. Raises CommandError."""
    prices = default_prices()
    if file is not None:
        try:
            with file.open("rb") as opened:
                data = opened.read(MAX_PRICES_BYTES + 1)
            if len(data) > MAX_PRICES_BYTES:
                raise CommandError(f"{file} has more than {MAX_PRICES_BYTES} bytes")
            prices = overridden(prices, data.decode())
        except OSError as exc:
            raise CommandError(f"cannot read {file}: {exc.strerror}") from None
        except ValueError as exc:
            raise CommandError(f"{file} is no file of prices: {exc}") from None
    for text in single:
        name, _, number = text.partition("=")
        try:
            value = float(number)
        except ValueError:
            raise CommandError(f"--price must be NAME=USD, such as qstash_messages=1.00, not '{text}'") from None
        try:
            prices = replaced(prices, name, {"price": value})
        except ValueError as exc:
            raise CommandError(str(exc)) from None
    return prices


def _shown(made: Bill) -> Iterator[str]:
    """Yield the bill for people, in lines of at most 80 columns."""
    usage = made.usage
    yield (
        f"{usage.runs:,} runs a month: {_count(usage.steps, 'step')}, {usage.seconds:g} s, "
        f"{_count(usage.events, 'printed line')}, {usage.watchers:g} live"
    )
    for title, lines, total in (
        ("Serverless, workers from zero", made.serverless, made.totals["serverless"]),
        ("Always on", made.always_on, made.totals["always_on"]),
    ):
        yield ""
        yield f"{title:<32}{'amount':>16}{'free':>14}{'US$':>12}"
        yield from (_row(line) for line in lines if line.amount)
        yield f"{'Total':<62}{total:>12,.2f}"
    yield ""
    yield "Redis commands, serverless"
    yield from (f"  {cause:<30}{amount:>16,.0f}" for cause, amount in made.redis_commands.items() if amount)
    yield ""
    for quota in made.quotas:
        if quota.exceeded_on_day is not None:
            yield f"Free quota used up: {quota.label} on day {quota.exceeded_on_day}"
    if all(quota.exceeded_on_day is None for quota in made.quotas):
        yield "No free quota is used up"
    yield f"Prices of {made.prices_of}. Assumed, so compare them; --price NAME=USD replaces one:"
    yield from (f"  {name}: {why}" for name, why in made.assumed.items())


def _row(line: BillLine) -> str:
    free = f"{line.free:,.0f}" if line.free else ""
    amount = f"{line.amount:,.0f}" if line.amount >= 100 or line.amount == int(line.amount) else f"{line.amount:,.2f}"
    return f"  {line.label:<30}{amount:>16}{free:>14}{line.cost:>12,.2f}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
