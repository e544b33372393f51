"""Commands in the process of a test."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import copy_context

import typer
from typer.testing import CliRunner, Result


def invoke(app: typer.Typer, words: Sequence[str] = (), env: Mapping[str, str] | None = None) -> Result:
    """Run a command as in a process of its own: what it notes, and how it logs, reaches no later test."""
    with _logging_kept():
        return copy_context().run(CliRunner().invoke, app, list(words), env=env)


@contextmanager
def _logging_kept() -> Iterator[None]:
    """Undo changes of logging: a command removes all handlers, and its own writes to a stream that is closed later."""
    before = {logger: (logger.level, logger.handlers[:]) for logger in _loggers()}
    try:
        yield
    finally:
        for logger in _loggers():
            level, logger.handlers[:] = before.get(logger, (logging.NOTSET, []))
            logger.setLevel(level)


def _loggers() -> list[logging.Logger]:
    root = logging.getLogger()
    return [root, *(each for each in root.manager.loggerDict.values() if isinstance(each, logging.Logger))]
