"""Dev stack in the foreground of a command: started, stopped by a signal, with one line for each failure."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from infra.devstack.background import BackgroundStack
from infra.devstack.errors import StackError
from infra.devstack.processes import loopback_exclusions
from infra.devstack.stack import DevStack
from infra.process_state import reset_inherited_state

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Unsafe = Annotated[
    bool,
    typer.Option("--unsafe-no-sandbox", help="Run tools without isolation. For development on a host you can lose."),
]


class Interrupted(BaseException):
    """Signal to stop. A BaseException, so that no handler of errors catches it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def running(data: Path, *, workers: int, port: int, unsafe_no_sandbox: bool) -> Iterator[DevStack]:
    """Start the stack, and stop it at the exit of the context. Exits with code 2 if the stack cannot start.

    Raises Interrupted on the first signal to stop; each further signal kills the stack.
    """
    reset_inherited_state()
    os.environ.update(loopback_exclusions(os.environ))  # this process is a client of the stack too
    stack = DevStack(
        data, workers=workers, port=port, unsafe_no_sandbox=unsafe_no_sandbox, report=lambda line: say(line, err=True)
    )
    with _signal_handlers(stack.kill):
        try:
            with BackgroundStack(stack):
                yield stack
        except StackError as exc:
            say(f"swissbrain: {exc}", err=True)
            raise typer.Exit(2) from None


def say(line: str, *, err: bool = False) -> None:
    """Print one line."""
    typer.echo(line, err=err)


@contextmanager
def _signal_handlers(kill: Callable[[], None]) -> Iterator[None]:
    """Raise Interrupted in the main thread on the first signal; call `kill` on each further one."""

    def on_further(_number: int, _frame: FrameType | None) -> None:
        kill()

    def on_first(number: int, _frame: FrameType | None) -> None:
        # Replaced first: a second signal must not interrupt the orderly stop with another exception.
        for each in handled:
            signal.signal(each, on_further)
        raise Interrupted(number)

    # `nohup` ignores SIGHUP, so that the stack outlives its terminal.
    handled = [each for each in SIGNALS if signal.getsignal(each) != signal.SIG_IGN]
    previous = {each: signal.signal(each, on_first) for each in handled}
    try:
        yield
    finally:
        for each, handler in previous.items():
            signal.signal(each, handler)
