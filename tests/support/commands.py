"""Commands in the process of a test."""

from collections.abc import Mapping, Sequence
from contextvars import copy_context

import typer
from typer.testing import CliRunner, Result


def invoke(app: typer.Typer, words: Sequence[str] = (), env: Mapping[str, str] | None = None) -> Result:
    """Run a command in a context of its own, as in a process of its own: what it notes reaches no later test."""
    return copy_context().run(CliRunner().invoke, app, list(words), env=env)
