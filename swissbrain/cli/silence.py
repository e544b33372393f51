"""Line that says why a followed run is silent, and for how long. It is drawn on a terminal only."""

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, TypeVar

import typer
from rich.console import Console
from rich.text import Text

from swissbrain.cli.queue_place import why_queued
from swissbrain.cli.terminal import duration, plain
from swissbrain.errors import ClientError
from swissbrain.models import Event, Gap, Run

if TYPE_CHECKING:
    from swissbrain import Client

T = TypeVar("T")

TICK_S = 1.0
SILENCE_S = 2.0
"""Silence after which the line appears."""
ASK_S = 10.0
"""Pause between two looks at the run while it is silent."""
_ERASE = "\r\x1b[2K"


class Reason:
    """Why a run is silent: from the events seen, and from looks at its record while it is not running."""

    def __init__(self, client: "Client", run_id: str) -> None:
        self._client = client
        self._run_id = run_id
        self._since = time.time()
        self._step: tuple[str, float] | None = None
        self._model: tuple[str, float] | None = None
        self._waits = ""
        self._asked: float | None = None
        self._run: Run | None = None

    def note(self, item: Event | Gap) -> None:
        """Take an event into account."""
        self._since = time.time()
        if not isinstance(item, Event):
            return
        if item.type == "step.started":
            number = "" if item.step is None else f" {item.step + 1}"
            self._step = (f"step{number} ({plain(item.data.get('name', ''))})", item.ts / 1000)
        elif item.type in {"step.finished", "run.requeued", "run.retried"}:
            self._step = None
        if item.type == "model.started":
            self._model = (plain(item.data.get("model", "")), item.ts / 1000)
        elif item.type == "model.message" or item.type.startswith("run."):
            self._model = None
        if item.type.startswith("run."):
            self._waits = ""
            self._asked = None  # its status has changed
        if item.type == "run.waiting":
            self._waits = f": {plain(item.data['question'])}" if item.data.get("question") else ""
            self._waits = f"waits for input{self._waits}; 'swissbrain resume {self._run_id}' answers"

    def text(self) -> str:
        """Return the reason with the time that has passed, or nothing before the silence is long enough."""
        now = time.time()
        silent_ms = (now - self._since) * 1000
        if silent_ms < SILENCE_S * 1000:
            return ""
        if self._waits:
            return f"{self._waits} ({duration(silent_ms)})"
        if self._model:
            name, asked_s = self._model
            return f"the model {name} is asked for {duration(max(0, now - asked_s) * 1000)}"
        if self._step:
            name, began_s = self._step
            return f"{name} runs for {duration(max(0, now - began_s) * 1000)}, silent for {duration(silent_ms)}"
        run = self._look()
        if run is None or run.status == "running":
            return f"silent for {duration(silent_ms)}"
        since_ms = run.queued_ms or run.created_ms
        return f"{plain(run.status)} for {duration(max(0, now * 1000 - since_ms))}{why_queued(run, now * 1000)}"

    def _look(self) -> Run | None:
        """Return the run as it was at the last look, which is at most ASK_S ago."""
        if self._asked is None or time.monotonic() - self._asked >= ASK_S:
            self._asked = time.monotonic()
            try:
                self._run = self._client.get_run(self._run_id)
            except ClientError:
                self._run = None  # the stream of events reports an outage
        return self._run


def with_reason(
    items: Iterator[Event | Gap], reason: Reason, screen: Console, may_draw: Callable[[], bool]
) -> Iterator[Event | Gap]:
    """Yield the items; while none comes, draw the reason on the screen. The line is gone before the next item.

    `may_draw`: False while a line of output is still open, which the reason would overwrite.
    """
    drawn = False

    def draw(text: str) -> None:
        nonlocal drawn
        if text or drawn:
            line = Text(" ".join(text.split()))
            line.truncate(max(screen.width - 1, 1), overflow="ellipsis")
            typer.echo(_ERASE + line.plain, err=True, nl=False)
        drawn = bool(text)

    with closing(_ticking(items)) as ticking:
        try:
            for item in ticking:
                if item is not None:
                    draw("")
                    reason.note(item)
                    yield item
                elif may_draw():
                    draw(reason.text())
        finally:
            draw("")


def _ticking(items: Iterator[T]) -> Generator[T | None, None, None]:
    """Yield the items, and None after each TICK_S without one. Raises what the iteration raises."""
    arrived: queue.Queue[T | BaseException | None] = queue.Queue(maxsize=1000)

    def pump() -> None:
        try:
            for item in items:
                arrived.put(item)
            arrived.put(StopIteration())
        except BaseException as exc:  # noqa: BLE001 - raised again in the thread that iterates
            arrived.put(exc)

    # A daemon, because it may wait for a silent connection when Ctrl-C ends the command.
    threading.Thread(target=pump, daemon=True).start()
    while True:
        try:
            item = arrived.get(timeout=TICK_S)
        except queue.Empty:
            yield None
            continue
        if isinstance(item, StopIteration):
            return
        if isinstance(item, BaseException):
            raise item
        yield item
