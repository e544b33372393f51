"""Command `swissbrain dev`: the whole product on this machine.

If the stack cannot start, the command prints one line on stderr, exits with code 2, and leaves no process running.
"""

import threading
import time
from pathlib import Path
from typing import Annotated

import typer

from infra.commands.running import Interrupted, Unsafe, running, say

DATA = Path(".swissbrain")
PORT = 8787


def _folder(text: str) -> Path:
    if not text:
        raise typer.BadParameter("the path is empty")
    return Path(text)


def dev(
    port: Annotated[int, typer.Option(help="Port of the API.", min=1, max=65535)] = PORT,
    data: Annotated[
        Path, typer.Option(parser=_folder, metavar="FOLDER", help="Folder for all data; created if it is missing.")
    ] = DATA,
    workers: Annotated[int, typer.Option(help="Number of worker processes.", min=1, max=64)] = 1,
    unsafe_no_sandbox: Unsafe = False,
) -> None:
    """Run everything on this machine until Ctrl-C; the data is kept for the next time."""
    started = time.monotonic()
    try:
        with running(data, workers=workers, port=port, unsafe_no_sandbox=unsafe_no_sandbox) as stack:
            say(f"SwissBrain is up after {time.monotonic() - started:.1f} s.")
            say(f"  API    {stack.env['SWISSBRAIN_API_URL']}")
            say(f"  token  {stack.env['SWISSBRAIN_TOKEN']}")
            say(f"  data   {data.absolute()} (addresses and keys in dev.env, logs in logs/)")
            say("Ctrl-C stops it.")
            threading.Event().wait()
    except Interrupted:
        say("Stopped; the data is kept.")
