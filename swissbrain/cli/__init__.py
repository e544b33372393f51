"""The command `swissbrain`.

Exit codes: 0 done, or the run succeeded; 1 the run failed; 2 bad input, a refusal, or an unreachable API, with one
line on stderr; 3 the run was cancelled; 130 interrupted.
"""

import signal
import sys
from importlib.metadata import version
from io import TextIOWrapper
from typing import Annotated

import typer
from typer.exceptions import TyperException

from swissbrain.cli.access import profile
from swissbrain.cli.commands import create, files, keys, logs, queue, runs, transitions
from swissbrain.cli.errors import CommandError
from swissbrain.cli.explanations import explain
from swissbrain.cli.output import USAGE, note
from swissbrain.cli.server_commands import CommandGroup
from swissbrain.errors import ClientError

INTERRUPTED = 128 + signal.SIGINT
COMMANDS = (
    create.run,
    logs.logs,
    runs.runs,
    runs.show,
    files.files,
    transitions.start,
    transitions.cancel,
    transitions.retry,
    create.fork,
    transitions.delete,
    queue.queue,
)
"""Commands in the order of the help; the name of a function is the name of its command."""

app = typer.Typer(
    cls=CommandGroup,
    help="Run AI agents, watch them, and keep what they make.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in COMMANDS:
    app.command()(command)
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
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        code = app(standalone_mode=False)
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
    except KeyboardInterrupt:
        code = INTERRUPTED
    sys.exit(code if isinstance(code, int) else 0)
