"""Command `steps`."""

from swissbrain.cli import tables
from swissbrain.cli.access import connect
from swissbrain.cli.options import Json, RunId
from swissbrain.cli.output import print_json, show_table
from swissbrain.cli.terminal import note


def steps(run_id: RunId, as_json: Json = False) -> None:
    """Show the steps of a run with their states and results, counted from 1; with --json from 0."""
    with connect(note) as client:
        found = client.steps(run_id)
    print_json(*found) if as_json else show_table(tables.steps_table(found))
