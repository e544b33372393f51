"""Signals that stop a command, so that it can remove what is unfinished."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(BaseException):
    """Signal to stop. A BaseException, so that no handler of errors catches it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def stop_signals() -> Iterator[None]:
    """Raise Stopped in the main thread on SIGTERM and SIGHUP, as Ctrl-C raises KeyboardInterrupt."""

    def stop(number: int, _frame: FrameType | None) -> None:
        raise Stopped(number)

    # `nohup` ignores SIGHUP, so that the command outlives its terminal.
    handled = [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) != signal.SIG_IGN]
    previous = {number: signal.signal(number, stop) for number in handled}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
