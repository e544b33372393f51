"""Progress bar on stderr, on a terminal only."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from swissbrain.cli.screen import console

MIN_ITEMS = 5
MIN_BYTES = 1_000_000


@contextmanager
def progress(label: str, total: int, *, is_bytes: bool = False) -> Iterator[Callable[[int], None]]:
    """Yield a function that advances a bar by a number of items or bytes; a small total has no bar.

    The number is negative where a lost transfer begins again.
    """
    screen = console(stderr=True)
    if not screen.is_terminal or screen.is_dumb_terminal or total < (MIN_BYTES if is_bytes else MIN_ITEMS):
        yield lambda _count: None
        return
    # Here, because few transfers have a bar.
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    done = DownloadColumn() if is_bytes else MofNCompleteColumn()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), done, TimeRemainingColumn())
    with Progress(*columns, console=screen, transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda count: bar.advance(task, count)
