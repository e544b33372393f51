"""Command `usage`."""

from typing import Annotated

import typer

from swissbrain.cli import tables
from swissbrain.cli.access import connect
from swissbrain.cli.options import Json
from swissbrain.cli.output import print_json, show_table
from swissbrain.cli.terminal import note


def usage(
    days: Annotated[int, typer.Option(help="Number of days, in UTC; today is the last.", min=1, max=400)] = 30,
    as_json: Json = False,
) -> None:
    """Show what language models have cost in your runs, by day."""
    with connect(note) as client:
        report = client.usage(days=days)
    print_json(report) if as_json else show_table(tables.usage_table(report))
