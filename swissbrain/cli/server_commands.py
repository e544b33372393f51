"""Commands of other distributions, found by the entry-point group `swissbrain.commands`.

The name of the entry point is the name of the command. Its object is a Typer app, or a function that Typer can turn
into a command. It is imported only when the command runs, so that `swissbrain --help` stays fast and works whatever is
installed. Therefore this module repeats the help lines of the commands of swissbrain-server.
"""

from importlib.metadata import EntryPoint, entry_points
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from swissbrain.cli.errors import CommandError

GROUP = "swissbrain.commands"
INSTALL = "pip install 'swissbrain-server[dev]'"
SERVER_COMMANDS = {
    "dev": "Run everything on this machine until Ctrl-C; the data is kept for the next time.",
    "demo": "Start everything, watch one real run, check its results, stop everything.",
    "verify": "Check every part of an installation with a real run, and clean up.",
    "cost": "Compute the bill of a month from measured counts, beside a design that is always on.",
    "recovery": "Let QStash call the API regularly, so that runs are recovered while there are no workers.",
    "deploy": "Check, apply, wait, verify: bring workers and API of a cluster, and the edge, to this release.",
    "rollback": "Return to what ran before the last deployment, and verify it; a second call changes nothing more.",
    "sweep": "Delete the stored objects of expired runs, and objects that no run needs.",
}
"""Commands of swissbrain-server and their help lines. They are listed even when that distribution is missing."""


class CommandMissing(CommandError):
    """Command of a distribution that is not installed, or cannot be imported."""


class LazyCommand(TyperCommand):
    """Placeholder of a command that is imported when it runs, and not when it is listed."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Import the command and let it parse its arguments. Raises CommandMissing."""
        return _import_command(self.name or "").make_context(info_name, args, parent, **extra)


class CommandGroup(TyperGroup):
    """Group of the commands of this package and of all installed distributions."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands, the commands of other distributions first."""
        own = list(self.commands)  # their names alone, which needs none of them
        return [*(name for name in SERVER_COMMANDS | _installed() if name not in own), *own]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command; None if there is none of this name."""
        # The own commands first: then they need no search through the installed distributions, and none of those can
        # replace them.
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        if cmd_name in SERVER_COMMANDS or cmd_name in _installed():
            return LazyCommand(cmd_name, short_help=SERVER_COMMANDS.get(cmd_name, ""))
        return None


def _installed() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _import_command(name: str) -> Any:
    point = _installed().get(name)
    if point is None:
        raise CommandMissing(
            f"the command '{name}' needs the package swissbrain-server, which is not installed; "
            f"install it with: {INSTALL}"
        )
    try:
        target = point.load()
    except (ImportError, AttributeError) as exc:
        origin = point.dist.name if point.dist else point.value
        raise CommandMissing(
            f"the command '{name}' of {origin} cannot be imported: {exc}; its dependencies come with: {INSTALL}"
        ) from exc
    return as_command(name, target)


def as_command(name: str, target: Any, kind: type[TyperCommand] = TyperCommand, settings: Any = None) -> Any:
    """Return the command of this name: a Typer app, or made from a function, of the kind and with context settings."""
    if not isinstance(target, typer.Typer):
        app = typer.Typer(add_completion=False)
        app.command(name, cls=kind, context_settings=settings)(target)
        target = app
    return typer.main.get_command(target)
