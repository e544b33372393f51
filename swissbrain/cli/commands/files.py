"""Command `files`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.filesize import decimal

from swissbrain.cli import tables
from swissbrain.cli.access import connect
from swissbrain.cli.downloads import is_pattern, save_files, select_files
from swissbrain.cli.errors import CommandError
from swissbrain.cli.exit_codes import USAGE
from swissbrain.cli.explanations import explain
from swissbrain.cli.options import Json, RunId
from swissbrain.cli.output import print_json, show_table
from swissbrain.cli.stop_signals import stop_signals
from swissbrain.cli.terminal import note
from swissbrain.errors import ClientError

if TYPE_CHECKING:
    from swissbrain import Client


def files(
    run_id: RunId,
    path: Annotated[
        str | None,
        typer.Argument(help="File to print; of a folder or a pattern, the list."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE|FOLDER/", help="Save the file there, or several in a folder."),
    ] = None,
    as_json: Json = False,
) -> None:
    """List a run's files, print one of them, or save some or all."""
    if output == "":
        raise typer.BadParameter("the path is empty", param_hint="--output")
    with connect(note) as client, stop_signals():
        several = path is None or path.endswith("/") or is_pattern(path)
        names_folder = output is not None and (output.endswith("/") or Path(output).is_dir())
        if path is not None and not several and not names_folder:
            _fetch_one(client, run_id, path, output)
            return
        found = select_files(client.files(run_id), path)
        if path is not None and not found:
            raise CommandError(f"no file of the run matches '{path}'")
        if path is not None and not names_folder and [file.path for file in found] == [path]:
            # A file whose name has the characters of a pattern.
            _fetch_one(client, run_id, path, output)
            return
        if output is None:
            print_json(*found) if as_json else show_table(tables.files_table(found))
            return
        size, fetched, failed = 0, 0, 0
        for file, outcome in save_files(client, run_id, found, Path(output)):
            if isinstance(outcome, Exception):
                failed += 1
                note(f"{file.path}: {_reason(outcome)}")
            elif outcome:
                fetched += 1
                size += file.size_bytes
        there = len(found) - fetched - failed
        more = f", {there} were there already" if there else ""
        note(f"{fetched} file{'' if fetched == 1 else 's'} ({decimal(size)}) saved in {output}{more}")
        if failed:
            raise typer.Exit(USAGE)


def _fetch_one(client: "Client", run_id: str, path: str, output: str | None) -> None:
    if output is None:
        client.download(run_id, path, sys.stdout.buffer)
        sys.stdout.flush()
    else:
        client.save(run_id, path, Path(output))


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename or 'cannot save it'}: {error.strerror}"
    return explain(error) if isinstance(error, ClientError) else str(error)
