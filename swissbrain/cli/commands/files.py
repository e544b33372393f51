"""Command `files`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from swissbrain.cli import tables
from swissbrain.cli.access import connect
from swissbrain.cli.options import Json, RunId
from swissbrain.cli.output import note, print_json
from swissbrain.cli.terminal import console


def files(
    run_id: RunId,
    path: Annotated[str | None, typer.Argument(help="Print this file instead of the list.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Save the file there.")] = None,
    as_json: Json = False,
) -> None:
    """List a run's files, or fetch one of them."""
    with connect(note) as client:
        if path is None:
            if output is not None:
                raise typer.BadParameter("--output needs the PATH of a file")
            found = client.files(run_id)
            print_json(*found) if as_json else console().print(tables.files_table(found))
        elif output is None:
            client.download(run_id, path, sys.stdout.buffer)
            sys.stdout.flush()
        else:
            client.save(run_id, path, output)
