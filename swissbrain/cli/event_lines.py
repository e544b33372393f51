"""Events of a log as lines for people. Escape sequences in the output of agents never reach the terminal."""

from collections.abc import Callable, Mapping
from typing import Any, Self

from rich.cells import cell_len
from rich.console import Console
from rich.control import Control
from rich.filesize import decimal
from rich.segment import ControlType
from rich.text import Text

from swissbrain.cli.terminal import STYLES, clock, duration, plain, status, timestamp, truncate
from swissbrain.models import Event, Gap

MAX_ARGS_CHARS = 100
MAX_UNKNOWN_CHARS = 1000
"""Limit for events of an unknown type, or with unexpected fields."""
_INDENT = "        "


class EventLines:
    """Printer of events, one line each. A context manager: its exit ends the last line, which may still be open.

    The parts of a long text, and the deltas of a model's reply, continue the line of the first part, as long as no
    other event comes between. A reply that was shown delta by delta is not shown again as a message. The success of a
    tool is not shown, because the end of its step shows it. An event with unexpected fields is shown raw. A line that
    replaces the one before it is drawn in its place on a terminal, and below it anywhere else.
    """

    def __init__(self, console: Console, *, timestamps: bool = False) -> None:
        """`timestamps`: show date and time zone beside the time of day."""
        self._console = console
        self._time = timestamp if timestamps else clock
        self._indent = len(self._time(0)) + 2
        self._redraws = console.is_terminal and not console.is_dumb_terminal
        self._open_text: tuple[object, ...] | None = None
        self._last_text: tuple[object, ...] | None = None
        self._last_line = ""
        self._deltas = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end_line()

    @property
    def is_line_open(self) -> bool:
        """True if the last line printed may still be continued."""
        return self._open_text is not None

    def show(self, item: Event | Gap) -> None:
        """Print an event or a gap."""
        if isinstance(item, Gap):
            self._end_line()
            self._last_text = None
            missing = f"{'':{self._indent}}events {item.first} to {item.last} are no longer kept"
            self._console.print(Text(missing, "yellow"), soft_wrap=True)
        elif item.type in _TEXT_STYLES and isinstance(item.data.get("text"), str):
            self._show_text(item, item.data["text"])
        else:
            self._end_line()
            if item.type != "tool.finished" or item.data.get("status") != "succeeded":
                self._last_text = None
                self._print(self._format(item))

    def _show_text(self, item: Event, text: str) -> None:
        more = item.data.get("more") is True
        if item.type == "model.message" and self._was_shown(item, text):
            # A long reply is split into several messages: this one covers the next part of the deltas.
            self._deltas = self._deltas[len(text) :]
            if not more:
                self._end_line()
            return
        text_id = (item.type, item.step, item.data.get("stream"))
        line = Text(plain(text), _TEXT_STYLES[item.type])
        replaces = item.type == "tool.output" and item.data.get("replaces_line") is True
        if replaces or self._open_text != text_id:
            self._end_line()
            line = self._format(item)
            if replaces and self._last_text == text_id:
                self._erase_line()
            self._last_text, self._last_line = text_id, ""
        self._last_line += line.plain
        more = more or item.type == "model.delta"
        self._print(line, end="" if more else "\n")
        self._open_text = text_id if more else None
        self._deltas = self._deltas + text if item.type == "model.delta" else ""

    def _was_shown(self, message: Event, text: str) -> bool:
        """Return True if the open line shows this text already, as deltas."""
        return self._open_text == ("model.delta", message.step, None) and bool(text) and self._deltas.startswith(text)

    def _erase_line(self) -> None:
        """Erase the last line, which has ended, on a terminal. It may fill several rows."""
        if self._redraws and "\n" not in self._last_line:
            rows = -(-cell_len(self._last_line.expandtabs()) // self._console.width)
            # A row that has left the terminal at its top cannot be erased.
            erase = [(ControlType.CURSOR_UP, 1), (ControlType.ERASE_IN_LINE, 2)]
            self._console.control(Control(*erase * min(rows, self._console.height - 1)))

    def _end_line(self) -> None:
        if self._open_text is not None:
            self._console.print()
        self._open_text, self._deltas = None, ""

    def _format(self, event: Event) -> Text:
        return Text.assemble((self._time(event.ts), "dim"), "  ", _describe(event))

    def _print(self, line: Text, end: str = "\n") -> None:
        if "\n" in line.plain:  # indented, so that a text of several lines cannot forge other events
            line = Text(f"\n{'':{self._indent}}").join(line.split("\n", allow_blank=not end))
        if self._console.color_system is None:
            # Without colours, writing directly gives the same output as rich in a tenth of the time; logs can be long.
            self._console.file.write(line.plain + end)
            self._console.file.flush()
        else:
            self._console.print(line, soft_wrap=True, end=end)


def _describe(event: Event) -> Text:
    try:
        return _FORMATTERS.get(event.type, _unknown)(event, event.data)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return _unknown(event, event.data)


def _run_started(_: Event, data: Mapping[str, Any]) -> Text:
    return Text(plain(f"run started on {data['worker']}, attempt {data['attempt']}"), "bold")


def _run_resumed(_: Event, data: Mapping[str, Any]) -> Text:
    return Text(plain(f"run goes on on {data['worker']}, attempt {data['attempt']}"), "bold")


def _run_requeued(_: Event, data: Mapping[str, Any]) -> Text:
    after = f", goes on in {duration(data['delay_ms'])}" if data.get("delay_ms") else ""
    why = f" ({data['message']})" if data.get("message") else ""
    return Text(plain(f"run given back: {data['reason']}{why}{after}"), "yellow")


def _run_retried(_: Event, data: Mapping[str, Any]) -> Text:
    return Text(plain(f"run queued again after it {_END_PHRASES.get(data['after'], data['after'])}"), "bold")


def _run_forked(_: Event, data: Mapping[str, Any]) -> Text:
    return Text(plain(f"run goes on from step {data['from_step'] + 1} of {data['run_id']}"), "bold")


def _run_waiting(_: Event, data: Mapping[str, Any]) -> Text:
    question = f": {data['question']}" if data.get("question") else ""
    return Text(plain(f"run waits for input{question}"), "magenta")


def _run_input(_: Event, data: Mapping[str, Any]) -> Text:
    by = f" by {data['by']}" if "by" in data else ""
    said = data.get("input") or data.get("comment") or ""
    return Text.assemble((plain(f"{data['decision']}{by}"), "magenta"), plain(f"  {said}" if said else ""))


def _message_received(_: Event, data: Mapping[str, Any]) -> Text:
    return Text.assemble((plain(f"message by {data['by']}"), "magenta"), plain(f"  {data['text']}"))


def _run_finished(_: Event, data: Mapping[str, Any]) -> Text:
    ended = str(data["status"])
    line = Text.assemble(("run ", "bold"), (plain(ended), f"bold {STYLES.get(ended, '')}"))
    error = data.get("error")
    return line.append(plain(f": {error['message']}")) if error else line


def _plan_created(_: Event, data: Mapping[str, Any]) -> Text:
    first = int(data.get("first", 0)) + 1
    lines = [f"\n{_INDENT}{number}  {plain(step['name'])}" for number, step in enumerate(data["steps"], first)]
    return Text.assemble(("plan", "cyan"), *lines)


def _step_started(event: Event, data: Mapping[str, Any]) -> Text:
    number = "" if event.step is None else f" {event.step + 1}"
    return Text.assemble((f"step{number}  ", "cyan"), (plain(data["name"]), "bold"))


def _step_finished(event: Event, data: Mapping[str, Any]) -> Text:
    number = "" if event.step is None else f" {event.step + 1}"
    return Text.assemble((f"step{number}  ", "cyan"), _outcome(data))


def _tool_started(_: Event, data: Mapping[str, Any]) -> Text:
    args = ", ".join(f"{name}={value!r}" for name, value in data["args"].items())
    return Text(f"{_INDENT}{plain(data['tool'])}({truncate(plain(args), MAX_ARGS_CHARS)})", "dim")


def _tool_output(_: Event, data: Mapping[str, Any]) -> Text:
    # Marked by a word, because a file has no colours and not all people see red.
    bar = ("    err │ ", "red") if data.get("stream") == "stderr" else (f"{_INDENT}│ ", "dim")
    return Text.assemble(bar, (plain(data["text"]), _TEXT_STYLES["tool.output"]))


def _tool_finished(_: Event, data: Mapping[str, Any]) -> Text:
    message = plain(f"  {data['message']}") if data.get("message") else ""
    return Text.assemble((f"{_INDENT}{plain(data['tool'])}: ", "dim"), _outcome(data), message)


def _artifact(_: Event, data: Mapping[str, Any]) -> Text:
    if data.get("deleted"):
        return Text(f"{_INDENT}- {plain(data['path'])}", "yellow")
    return Text(f"{_INDENT}+ {plain(data['path'])}  {decimal(int(data['size_bytes']))}", "green")


def _text(event: Event, data: Mapping[str, Any]) -> Text:
    return Text(f"{_INDENT}{plain(data['text'])}", _TEXT_STYLES[event.type])


def _log(_: Event, data: Mapping[str, Any]) -> Text:
    return Text(f"{_INDENT}{plain(data['level'])}: {plain(data['message'])}", "yellow")


def _unknown(event: Event, data: Mapping[str, Any]) -> Text:
    return Text(truncate(plain(f"{event.type} {data}" if data else event.type), MAX_UNKNOWN_CHARS), "dim")


def _outcome(data: Mapping[str, Any]) -> Text:
    took = f" in {duration(data['duration_ms'])}" if isinstance(data.get("duration_ms"), int) else ""
    return status(str(data["status"])).append(took, "dim")


_END_PHRASES = {"failed": "failed", "cancelled": "was cancelled"}
_TEXT_STYLES: Mapping[str, str] = {"tool.output": "", "message": "bold", "model.delta": "", "model.message": ""}
"""Types whose text may be split into several events, and the style of the text."""
_FORMATTERS: Mapping[str, Callable[[Event, Mapping[str, Any]], Text]] = {
    "run.started": _run_started,
    "run.resumed": _run_resumed,
    "run.requeued": _run_requeued,
    "run.retried": _run_retried,
    "run.forked": _run_forked,
    "run.waiting": _run_waiting,
    "message.received": _message_received,
    "run.input": _run_input,
    "run.finished": _run_finished,
    "plan.created": _plan_created,
    "step.started": _step_started,
    "step.finished": _step_finished,
    "tool.started": _tool_started,
    "tool.output": _tool_output,
    "tool.finished": _tool_finished,
    "artifact": _artifact,
    "message": _text,
    "log": _log,
    "model.delta": _text,
    "model.message": _text,
}
