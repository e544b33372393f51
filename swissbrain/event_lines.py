"""Events of a log as lines for people. Nothing that an agent printed reaches the terminal as a command."""

from collections.abc import Callable, Mapping
from typing import Any, Self

from rich.console import Console
from rich.filesize import decimal
from rich.text import Text

from swissbrain.models import Event, Gap
from swissbrain.terminal import STYLES, clock, cut, duration, plain, status

SHOWN_ARGS = 100
"""A tool's arguments are cut to so many characters."""
SHOWN_OTHER = 1000
"""So are events that are not known."""
_INDENT = "        "
_TIME_WIDTH = 12


class EventLines:
    """Prints events as they come, a line each; leave it as a context, for the last line may lack its end.

    A text that comes in parts, and the pieces of a model's reply, go on in the line where they began: but only the
    next part of that very text, never anything else. That a tool succeeded is left to the end of its step, and a reply
    that was shown piece by piece is not shown again. An event that is not as it should be is shown as it is.
    """

    def __init__(self, to: Console) -> None:
        self._to = to
        self._open: tuple[object, ...] | None = None
        self._pieces = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end_line()

    def show(self, item: Event | Gap) -> None:
        """Print an event, or that some are missing."""
        if isinstance(item, Gap):
            self._end_line()
            missing = f"{'':{_TIME_WIDTH}}  events {item.first} to {item.last} are no longer kept"
            self._to.print(Text(missing, "yellow"), soft_wrap=True)
        elif item.type in _PARTED and isinstance(item.data.get("text"), str):
            self._show_text(item, item.data["text"])
        else:
            self._end_line()
            if item.type != "tool.finished" or item.data.get("status") != "succeeded":
                self._print(_line(item))

    def _show_text(self, item: Event, text: str) -> None:
        more = item.data.get("more") is True
        if item.type == "model.message" and self._repeats(item, text):
            self._pieces = self._pieces[len(text) :]
            if not more:
                self._end_line()
            return
        whose = (item.type, item.step, item.data.get("stream"))
        shown = Text(plain(text), _PARTED[item.type])
        if self._open != whose:
            self._end_line()
            shown = _line(item)
        more = more or item.type == "model.delta"
        self._print(shown, end="" if more else "\n")
        self._open = whose if more else None
        self._pieces = self._pieces + text if item.type == "model.delta" else ""

    def _repeats(self, message: Event, text: str) -> bool:
        """Whether the text is what the line just shows, piece by piece."""
        return self._open == ("model.delta", message.step, None) and bool(text) and self._pieces.startswith(text)

    def _end_line(self) -> None:
        if self._open is not None:
            self._to.print()
        self._open, self._pieces = None, ""

    def _print(self, line: Text, end: str = "\n") -> None:
        if "\n" in line.plain:  # a text of several lines must not look like several events
            line = Text(f"\n{'':{_TIME_WIDTH + 2}}").join(line.split("\n", allow_blank=not end))
        if self._to.color_system is None:
            # What rich does where nothing is to be coloured, in a tenth of the time: logs can be long.
            self._to.file.write(line.plain + end)
            self._to.file.flush()
        else:
            self._to.print(line, soft_wrap=True, end=end)


def _line(event: Event) -> Text:
    try:
        shown = _SHOWN.get(event.type, _other)(event, event.data)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        shown = _other(event, event.data)
    return Text.assemble((clock(event.ts), "dim"), "  ", shown)


def _run_started(_: Event, data: Mapping[str, Any]) -> Text:
    return Text(plain(f"run started on {data['worker']}, attempt {data['attempt']}"), "bold")


def _run_resumed(_: Event, data: Mapping[str, Any]) -> Text:
    return Text(plain(f"run goes on on {data['worker']}, attempt {data['attempt']}"), "bold")


def _run_requeued(_: Event, data: Mapping[str, Any]) -> Text:
    after = f", goes on in {duration(data['delay_ms'])}" if data.get("delay_ms") else ""
    return Text(plain(f"run given back: {data['reason']}{after}"), "yellow")


def _run_retried(_: Event, data: Mapping[str, Any]) -> Text:
    return Text(plain(f"run queued again after it {_ENDED.get(data['after'], data['after'])}"), "bold")


def _run_forked(_: Event, data: Mapping[str, Any]) -> Text:
    return Text(plain(f"run goes on from step {data['from_step'] + 1} of {data['run_id']}"), "bold")


def _run_waiting(_: Event, data: Mapping[str, Any]) -> Text:
    question = f": {data['question']}" if data.get("question") else ""
    return Text(plain(f"run waits for input{question}"), "magenta")


def _run_input(_: Event, data: Mapping[str, Any]) -> Text:
    return Text.assemble(("input  ", "magenta"), plain(data["input"]))


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
    return Text(f"{_INDENT}{plain(data['tool'])}({cut(plain(args), SHOWN_ARGS)})", "dim")


def _tool_output(_: Event, data: Mapping[str, Any]) -> Text:
    bar = (f"{_INDENT}│ ", "red" if data.get("stream") == "stderr" else "dim")
    return Text.assemble(bar, (plain(data["text"]), _PARTED["tool.output"]))


def _tool_finished(_: Event, data: Mapping[str, Any]) -> Text:
    message = plain(f"  {data['message']}") if data.get("message") else ""
    return Text.assemble((f"{_INDENT}{plain(data['tool'])}: ", "dim"), _outcome(data), message)


def _artifact(_: Event, data: Mapping[str, Any]) -> Text:
    if data.get("deleted"):
        return Text(f"{_INDENT}- {plain(data['path'])}", "yellow")
    return Text(f"{_INDENT}+ {plain(data['path'])}  {decimal(int(data['size_bytes']))}", "green")


def _text(event: Event, data: Mapping[str, Any]) -> Text:
    return Text(f"{_INDENT}{plain(data['text'])}", _PARTED[event.type])


def _log(_: Event, data: Mapping[str, Any]) -> Text:
    return Text(f"{_INDENT}{plain(data['level'])}: {plain(data['message'])}", "yellow")


def _other(event: Event, data: Mapping[str, Any]) -> Text:
    return Text(cut(plain(f"{event.type} {data}" if data else event.type), SHOWN_OTHER), "dim")


def _outcome(data: Mapping[str, Any]) -> Text:
    took = f" in {duration(data['duration_ms'])}" if isinstance(data.get("duration_ms"), int) else ""
    return status(str(data["status"])).append(took, "dim")


_ENDED = {"failed": "failed", "cancelled": "was cancelled"}
_PARTED: Mapping[str, str] = {"tool.output": "", "message": "bold", "model.delta": "", "model.message": ""}
"""The types whose text may come in parts, and the style of it."""
_SHOWN: Mapping[str, Callable[[Event, Mapping[str, Any]], Text]] = {
    "run.started": _run_started,
    "run.resumed": _run_resumed,
    "run.requeued": _run_requeued,
    "run.retried": _run_retried,
    "run.forked": _run_forked,
    "run.waiting": _run_waiting,
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
