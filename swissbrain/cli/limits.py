"""Limits of runs as options of a command."""

from typing import Annotated

import msgspec
import typer

from swissbrain import Limits
from swissbrain.cli.output import pairs
from swissbrain.cli.times import seconds

LimitOptions = Annotated[
    list[str] | None,
    typer.Option("--limit", metavar="KEY=VALUE", help=f"Limit of the run: {', '.join(Limits.__struct_fields__)}."),
]


def limits_of(options: list[str] | None) -> Limits | None:
    """Return the limits that options give; None without any. Raises BadParameter."""
    given = pairs(options or [], "--limit")
    for name, number in [*given.items()]:
        if name not in Limits.__struct_fields__:
            known = ", ".join(Limits.__struct_fields__)
            raise typer.BadParameter(f"'{name}' is no limit; allowed are {known}", param_hint="--limit")
        if name == "wall_s":
            try:
                given[name] = f"{seconds(number)}"
            except typer.BadParameter as exc:
                raise typer.BadParameter(f"wall_s: {exc.message}", param_hint="--limit") from None
            continue
        try:
            msgspec.convert({name: number}, Limits, strict=False)
        except msgspec.ValidationError:
            raise typer.BadParameter(f"'{number}' is no number for '{name}'", param_hint="--limit") from None
    return msgspec.convert(given, Limits, strict=False) if given else None
