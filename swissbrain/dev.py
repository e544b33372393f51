"""`swissbrain dev` and `swissbrain demo`: the whole product on this machine.

What keeps it from starting is one line on stderr and exit code 2, with nothing left running.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from infra.devstack.stack import DevStack

DATA = Path(".swissbrain")
PORT = 8787

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Unsafe = Annotated[
    bool,
    typer.Option("--unsafe-no-sandbox", help="Run tools without isolation. For development on a host you can lose."),
]


class Interrupted(BaseException):
    """A signal asked to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def dev(
    port: Annotated[int, typer.Option(help="Where the API listens.", min=1, max=65535)] = PORT,
    data: Annotated[Path, typer.Option(help="The folder that keeps everything; made if it is missing.")] = DATA,
    workers: Annotated[int, typer.Option(help="How many worker processes.", min=1, max=64)] = 1,
    unsafe_no_sandbox: Unsafe = False,
) -> None:
    """Run everything on this machine until Ctrl-C; the data is kept for the next time."""
    began = time.monotonic()
    try:
        with running(data, workers=workers, port=port, unsafe_no_sandbox=unsafe_no_sandbox) as stack:
            _say(f"SwissBrain is up after {time.monotonic() - began:.1f} s.")
            _say(f"  API    {stack.env['SWISSBRAIN_API_URL']}")
            _say(f"  token  {stack.env['SWISSBRAIN_TOKEN']}")
            _say(f"  data   {data.absolute()} (addresses and keys in dev.env, logs in logs/)")
            _say("Ctrl-C stops it.")
            threading.Event().wait()
    except Interrupted:
        _say("Stopped; the data is kept.")


def demo(unsafe_no_sandbox: Unsafe = False) -> None:
    """Start everything, watch one real run go through it, check what came out, stop everything."""
    from swissbrain import demo as show

    try:
        succeeded = show.main(lambda data: running(data, workers=1, port=0, unsafe_no_sandbox=unsafe_no_sandbox))
    except Interrupted as exc:
        raise typer.Exit(128 + exc.number) from None
    if not succeeded:
        raise typer.Exit(1)


@contextmanager
def running(data: Path, *, workers: int, port: int, unsafe_no_sandbox: bool) -> Iterator["DevStack"]:
    """The stack, stopped in the end. Raises Interrupted when a signal asks to stop; a second one kills it at once."""
    from infra.devstack.background import BackgroundStack
    from infra.devstack.errors import StackError
    from infra.devstack.stack import DevStack

    stack = DevStack(
        data, workers=workers, port=port, unsafe_no_sandbox=unsafe_no_sandbox, report=lambda line: _say(line, err=True)
    )
    with _signals(stack.kill):
        try:
            with BackgroundStack(stack):
                yield stack
        except StackError as exc:
            _say(f"swissbrain: {exc}", err=True)
            raise typer.Exit(2) from None


@contextmanager
def _signals(kill: Callable[[], None]) -> Iterator[None]:
    """The first signal raises Interrupted here, in the main thread; each one after it kills."""

    def again(_number: int, _frame: FrameType | None) -> None:
        kill()

    def first(number: int, _frame: FrameType | None) -> None:
        for each in SIGNALS:
            signal.signal(each, again)
        raise Interrupted(number)

    before = {each: signal.signal(each, first) for each in SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _say(line: str, *, err: bool = False) -> None:
    typer.echo(line, err=err)
