"""Command `queue`."""

from swissbrain.cli import tables
from swissbrain.cli.access import connect
from swissbrain.cli.options import Json
from swissbrain.cli.output import print_json, show_table
from swissbrain.cli.terminal import note


def queue(as_json: Json = False) -> None:
    """Show the number of runs in each part of the queue, of all users."""
    with connect(note) as client:
        depths = client.queue()
    print_json(depths) if as_json else show_table(tables.queue_table(depths))
