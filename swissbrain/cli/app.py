"""The application behind the command `swissbrain`: its commands, its options, and what its errors become."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from importlib.metadata import version
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from typer.exceptions import TyperException

from swissbrain.cli.access import profile
from swissbrain.cli.errors import CommandError
from swissbrain.cli.exit_codes import INTERRUPTED, USAGE
from swissbrain.cli.explanations import explain
from swissbrain.cli.program_steps import OrderedCommand
from swissbrain.cli.server_commands import CommandGroup, as_command
from swissbrain.cli.stop_signals import Stopped
from swissbrain.cli.terminal import note
from swissbrain.errors import ClientError

COMMANDS: Mapping[str, str] = {
    "run": "create:run",
    "exec": "execute:execute",
    "wait": "wait:wait",
    "logs": "logs:logs",
    "runs": "runs:runs",
    "show": "runs:show",
    "steps": "steps:steps",
    "files": "files:files",
    "start": "transitions:start",
    "resume": "people:resume",
    "approve": "people:approve",
    "deny": "people:deny",
    "say": "people:say",
    "interrupt": "people:interrupt",
    "cancel": "transitions:cancel",
    "retry": "transitions:retry",
    "fork": "create:fork",
    "delete": "transitions:delete",
    "usage": "usage:usage",
    "queue": "queue:queue",
    "schedule": "schedule:schedule",
    "webhook": "webhook:webhook",
    "key": "keys:key",
    "doctor": "doctor:doctor",
}
"""Commands in the order of the help: the module of each in `swissbrain.cli.commands`, and its function or app there."""


class Commands(Mapping[str, Any]):
    """The own commands by name. Each is imported when it is looked up, so that a command does not load all others."""

    def __getitem__(self, name: str) -> Any:
        """Return the command of this name. Raises KeyError."""
        module, _, attribute = COMMANDS[name].partition(":")
        target = getattr(import_module(f"swissbrain.cli.commands.{module}"), attribute)
        # After the program of `exec`, every word is its argument, also one that looks like an option.
        return as_command(name, target, OrderedCommand, {"allow_interspersed_args": name != "exec"})

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class OwnCommandGroup(CommandGroup):
    """Group of the own commands and of all installed distributions' commands."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings | {"commands": Commands()})


app = typer.Typer(
    cls=OwnCommandGroup,
    help="Run AI agents, watch them, and keep what they make.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def main_options(
    context: typer.Context,
    show_version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
    profile_name: Annotated[
        str | None,
        typer.Option("--profile", metavar="NAME", help="Use the API and token of .swissbrain/NAME.env, here or above."),
    ] = None,
) -> None:
    """Run AI agents, watch them, and keep what they make."""
    profile.set(profile_name)
    if show_version:
        typer.echo(f"swissbrain {version('swissbrain')}")
        raise typer.Exit
    del context


def run() -> int:
    """Run the command and return its exit code. An error is one line on stderr. Raises KeyboardInterrupt."""
    _prepare_streams()
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
    except TyperException as exc:
        if message := exc.format_message():
            _report(message)
        code = USAGE
    except ClientError as exc:
        _report(explain(exc))
        code = USAGE
    except CommandError as exc:
        _report(str(exc))
        code = USAGE
    except OSError as exc:
        _report(f"{exc.filename or 'cannot go on'}: {exc.strerror}")
        code = USAGE
        _discard_unwritable(sys.stdout)
    except Stopped as exc:
        code = 128 + exc.number
    except typer.Abort:  # Ctrl-C or Ctrl-D instead of an answer
        code = INTERRUPTED
    return code if isinstance(code, int) else 0


def _report(error: str) -> None:
    # If standard error is full or closed, the exit code alone must say that the command failed.
    with suppress(OSError):
        note(error)
    _discard_unwritable(sys.stderr)


def _prepare_streams() -> None:
    """Replace standard streams that are closed, and accept text of any encoding."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # As long as the command runs. The lowest free descriptor is that of the stream, so no connection gets it.
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def _discard_unwritable(stream: TextIO) -> None:
    """Discard what a stream still buffers, if it cannot be written."""
    try:
        stream.flush()
    except OSError:
        # The interpreter flushes once more at its end: it would report the failure in a second line, and exit with 120.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
