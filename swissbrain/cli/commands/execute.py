"""Command `exec`: a program of a run as if it ran here."""

import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swissbrain import shell
from swissbrain.cli.access import connect
from swissbrain.cli.exit_codes import FAILED
from swissbrain.cli.explanations import explain
from swissbrain.cli.inputs import InputError, input_files, send_files
from swissbrain.cli.options import InputFiles, Network
from swissbrain.cli.program_output import StreamCopy
from swissbrain.cli.screen import console
from swissbrain.cli.silence import Reason, with_reason
from swissbrain.cli.stop_signals import Stopped, stop_signals
from swissbrain.cli.terminal import note
from swissbrain.cli.times import seconds
from swissbrain.errors import ClientError
from swissbrain.models import Event, Gap

if TYPE_CHECKING:
    from swissbrain import Client

NO_EXIT_CODE, TIMED_OUT = 125, 124
"""Exit codes for a run that ended without one, as of other commands that execute programs elsewhere."""
MAX_TIMEOUT_S = 3600.0
SPARE_S = 60.0
"""Time that a run has in addition to its program, so that the program's own limit ends it and its files are stored."""
CANCEL_S = 10.0


def execute(
    words: Annotated[list[str], typer.Argument(metavar="PROGRAM [ARGUMENT]...", help="Program and its arguments.")],
    file: InputFiles = None,
    network: Network = None,
    python: Annotated[
        bool, typer.Option("--python", help="PROGRAM is a Python program of this machine, which is sent along.")
    ] = False,
    node: Annotated[
        bool, typer.Option("--node", help="PROGRAM is a JavaScript program of this machine, which is sent along.")
    ] = False,
    timeout_s: Annotated[
        float | None,
        typer.Option("--timeout", parser=seconds, metavar="DURATION", help="Time until it is killed, at most 1h."),
    ] = None,
) -> None:
    """Execute a program in a new run, print what it prints, and exit with its code. Ctrl-C cancels it."""
    if python and node:
        raise typer.BadParameter("give --python or --node, not both")
    if not words[0].strip():
        raise typer.BadParameter("the name of the program is empty")
    limit_s = MAX_TIMEOUT_S if timeout_s is None else timeout_s
    if not 0 < limit_s <= MAX_TIMEOUT_S:
        raise typer.BadParameter("a program can run for more than 0 s and at most 1h", param_hint="--timeout")
    files = input_files(file or [])
    if python or node:
        words = _with_interpreter("python3" if python else "node", words, files)
    step = shell(shlex.join(words), timeout_s=limit_s, network=network, name=words[0][:200] or None)
    with connect(note) as client, stop_signals():
        # Started only when its id is known, so that it can be cancelled whenever this command is stopped.
        run = client.create_run(step, start=False, timeout_s=limit_s + SPARE_S)
        send_files(client, run, files)
        code = _execute(client, run.run_id)
    raise typer.Exit(code)


def _execute(client: "Client", run_id: str) -> int:
    """Start the run and copy its output; return the exit code. If this command is stopped, the run is cancelled."""
    try:
        client.start(run_id)
        return _follow(client, run_id)
    except (KeyboardInterrupt, Stopped, OSError):  # OSError: the receiver of the output has gone
        _cancel(client, run_id)
        raise
    except ClientError as exc:
        note(f"run {run_id} may continue: {explain(exc)}")
        return NO_EXIT_CODE


def _with_interpreter(interpreter: str, words: list[str], files: dict[str, Path]) -> list[str]:
    """Return the command line of a local program, which is added to the files to send. Raises InputError."""
    if words[0].startswith("-"):
        return [interpreter, *words]
    program = Path(words[0])
    if not program.is_file():
        raise InputError(f"cannot read {program}: there is no such file")
    if files.setdefault(program.name, program) != program:
        raise InputError(f"--file: another file would be '{program.name}' in the workspace")
    return [interpreter, program.name, *words[1:]]


def _follow(client: "Client", run_id: str) -> int:
    """Copy the output until the run has ended; return the exit code."""
    copies = {
        "stdout": StreamCopy(sys.stdout.buffer, sys.stdout.isatty()),
        "stderr": StreamCopy(sys.stderr.buffer, sys.stderr.isatty()),
    }
    ended: Mapping[str, Any] = {}
    outcome: Mapping[str, Any] = {}
    for event in _events(client, run_id, copies):
        if event.type == "tool.output" and event.data.get("stream") in copies:
            copies[event.data["stream"]].line(event.data)
        elif event.type == "tool.finished":
            ended = event.data
        elif event.type == "run.finished":
            outcome = event.data
        elif event.type == "run.requeued":
            ended = {}
            for copy in copies.values():
                copy.restart()
    stored = {str(path).rpartition(".")[2]: str(path) for path in ended.get("kept", ())}
    for stream, copy in copies.items():
        path = stored.get(stream)
        copy.finish(None if path is None else partial(client.download, run_id, path))
        if copy.differs:
            note(f"run {run_id}: the program was executed twice, and its {stream} was not the same")
    return _exit_code(run_id, ended, outcome)


def _events(client: "Client", run_id: str, copies: Mapping[str, StreamCopy]) -> Iterator[Event]:
    screen = console(stderr=True)
    items: Iterator[Event | Gap] = client.events(run_id)
    if screen.is_terminal and not screen.is_dumb_terminal:
        # Only before the first output, which the line would overwrite.
        is_silent = lambda: not any(copy.printed_bytes for copy in copies.values())  # noqa: E731
        items = with_reason(items, Reason(client, run_id), screen, is_silent)
    for item in items:
        if isinstance(item, Event):
            yield item
        else:
            note(f"run {run_id}: the events {item.first} to {item.last} are no longer kept, so output may be missing")


def _exit_code(run_id: str, ended: Mapping[str, Any], outcome: Mapping[str, Any]) -> int:
    if outcome.get("status") == "succeeded":
        return 0
    error = outcome.get("error") or {}
    if error.get("code") == "exit_code":
        code = ended.get("exit_code")
        return code if isinstance(code, int) else FAILED  # of a worker that does not log the code
    note(f"run {run_id} {outcome.get('status', 'ended')}" + (f": {error['message']}" if error.get("message") else ""))
    return TIMED_OUT if error.get("code") == "timeout" else NO_EXIT_CODE


def _cancel(client: "Client", run_id: str) -> None:
    try:
        client.cancel(run_id)
        with suppress(ClientError):
            client.wait(run_id, timeout_s=CANCEL_S)
    except ClientError as exc:
        note(f"run {run_id} may continue: {exc}; 'swissbrain cancel {run_id}' stops it")
