"""The command `swissbrain`.

Exit codes: 0 done, or the run succeeded; 1 the run failed; 2 bad input, a refusal, or an unreachable API, with one
line on stderr; 3 the run was cancelled; 4 it has not ended; 130 interrupted. `exec` exits with the code of the program.
"""

import os
import signal
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

from swissbrain.cli.access import profile
from swissbrain.cli.commands import (
    create,
    execute,
    files,
    keys,
    logs,
    people,
    queue,
    runs,
    schedule,
    steps,
    transitions,
    usage,
    wait,
)
from swissbrain.cli.errors import CommandError
from swissbrain.cli.explanations import explain
from swissbrain.cli.output import USAGE, note
from swissbrain.cli.program_steps import OrderedCommand
from swissbrain.cli.server_commands import CommandGroup
from swissbrain.errors import ClientError

INTERRUPTED = 128 + signal.SIGINT
COMMANDS: Mapping[str, Callable[..., None]] = {
    "run": create.run,
    "exec": execute.execute,
    "wait": wait.wait,
    "logs": logs.logs,
    "runs": runs.runs,
    "show": runs.show,
    "steps": steps.steps,
    "files": files.files,
    "start": transitions.start,
    "resume": people.resume,
    "approve": people.approve,
    "deny": people.deny,
    "say": people.say,
    "interrupt": people.interrupt,
    "cancel": transitions.cancel,
    "retry": transitions.retry,
    "fork": create.fork,
    "delete": transitions.delete,
    "usage": usage.usage,
    "queue": queue.queue,
}
"""Commands in the order of the help, by name."""

app = typer.Typer(
    cls=CommandGroup,
    help="Run AI agents, watch them, and keep what they make.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for name, command in COMMANDS.items():
    # After the program of `exec`, every word is its argument, also one that looks like an option.
    settings = {"allow_interspersed_args": name != "exec"}
    app.command(name, cls=OrderedCommand, context_settings=settings)(command)
app.add_typer(schedule.schedule, name="schedule")
app.add_typer(keys.key, name="key")


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


def main() -> None:
    """Run the command and exit. An error is one line on stderr."""
    _prepare_streams()
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
    except TyperException as exc:
        if message := exc.format_message():
            note(message)
        code = USAGE
    except ClientError as exc:
        note(explain(exc))
        code = USAGE
    except CommandError as exc:
        note(str(exc))
        code = USAGE
    except OSError as exc:
        note(f"{exc.filename or 'cannot go on'}: {exc.strerror}")
        code = USAGE
        _discard_output()
    except (KeyboardInterrupt, typer.Abort):  # Abort: Ctrl-C or Ctrl-D instead of an answer
        code = INTERRUPTED
    sys.exit(code if isinstance(code, int) else 0)


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


def _discard_output() -> None:
    """Discard output that standard output still buffers, if it cannot be written."""
    try:
        sys.stdout.flush()
    except OSError:
        # The interpreter flushes once more at its end, and would report the failure in a second line.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
