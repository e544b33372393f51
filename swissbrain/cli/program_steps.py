"""Steps from the options `--shell` and `--code`, in the order of the command line."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

from swissbrain import code, shell
from swissbrain.cli.errors import CommandError
from swissbrain.cli.terminal import truncate
from swissbrain.models import PlanStep

ORDER = "swissbrain.option_order"
NAME_CHARS = 60
LANGUAGES = {".py": code.python, ".js": code.node, ".mjs": code.node, ".cjs": code.node, ".sh": code.bash}


class OrderedCommand(TyperCommand):
    """Command that keeps the order in which its options were given, which Typer does only for each option alone."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments and store the names of the options in the context."""
        *_, given = self.make_parser(ctx).parse_args(args=list(args))
        ctx.meta[ORDER] = [parameter.name for parameter in given]
        return super().parse_args(ctx, args)


def program_steps(
    context: typer.Context, commands: Sequence[str], programs: Sequence[Path], network: Sequence[str]
) -> list[PlanStep]:
    """Return a step for each command line of `--shell` and each file of `--code`, all with the same network.

    Raises CommandError.
    """
    if network and not (commands or programs):
        raise CommandError("--network: it needs a step of --shell or --code")
    values: dict[str, Iterator[PlanStep]] = {
        "shell": (_shell_step(command, network) for command in commands),
        "code": (code_step(program, network) for program in programs),
    }
    return [next(values[name]) for name in context.meta[ORDER] if name in values]


def _shell_step(command: str, network: Sequence[str]) -> PlanStep:
    if not command.strip():
        raise CommandError("--shell: the command is empty")
    return shell(command, network=network, name=truncate(" ".join(command.split()), NAME_CHARS))


def code_step(program: Path, network: Sequence[str] = ()) -> PlanStep:
    """Return the step that runs a local program, in the language of its ending. Raises CommandError."""
    if program == Path():
        raise CommandError("--code: the path of the program is empty, or the current folder")
    language = LANGUAGES.get(program.suffix.lower())
    if language is None:
        raise CommandError(f"--code: {program} does not end with {', '.join(LANGUAGES)}, which tell the language")
    try:
        made = language(program, network=network)
    except OSError as exc:
        raise CommandError(f"--code: cannot read {program}: {exc.strerror}") from None
    except ValueError:
        raise CommandError(f"--code: {program} is not UTF-8 text") from None
    if not made.args["source"]:
        raise CommandError(f"--code: {program} is empty")
    return made
