"""Events of a log as lines for people. Nothing that an agent printed reaches the terminal as a command."""

from collections.abc import Callable, Mapping
from typing import Any

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


def print_event(to: Console, item: Event | Gap) -> None:
    """A line for an event, or for events that are missing. That a tool succeeded is left to the end of its step.

    An event that is not as it should be is shown as it is.
    """
    if isinstance(item, Gap):
        to.print(Text(f"{'':12}  events {item.first} to {item.last} are no longer kept", "yellow"), soft_wrap=True)
        return
    if item.type == "tool.finished" and item.data.get("status") == "succeeded":
        return
    try:
        shown = _SHOWN.get(item.type, _other)(item, item.data)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        shown = _other(item, item.data)
    line = Text.assemble((clock(item.ts), "dim"), "  ", shown)
    # A text of several lines must not look like several events.
    to.print(Text(f"\n{'':14}").join(line.split("\n")), soft_wrap=True)


def _run_started(_: Event, data: Mapping[str, Any]) -> Text:
    return Text(plain(f"run started on {data['worker']}, attempt {data['attempt']}"), "bold")


def _run_resumed(_: Event, data: Mapping[str, Any]) -> Text:
    return Text(plain(f"run goes on on {data['worker']}, attempt {data['attempt']}"), "bold")


def _run_requeued(_: Event, data: Mapping[str, Any]) -> Text:
    after = f", goes on in {duration(data['delay_ms'])}" if data.get("delay_ms") else ""
    return Text(plain(f"run given back: {data['reason']}{after}"), "yellow")


def _run_finished(_: Event, data: Mapping[str, Any]) -> Text:
    ended = str(data["status"])
    line = Text.assemble(("run ", "bold"), (plain(ended), f"bold {STYLES.get(ended, '')}"))
    error = data.get("error")
    return line.append(plain(f": {error['message']}")) if error else line


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
    return Text.assemble(bar, plain(data["text"]))


def _tool_finished(_: Event, data: Mapping[str, Any]) -> Text:
    message = plain(f"  {data['message']}") if data.get("message") else ""
    return Text.assemble((f"{_INDENT}{plain(data['tool'])}: ", "dim"), _outcome(data), message)


def _artifact(_: Event, data: Mapping[str, Any]) -> Text:
    if data.get("deleted"):
        return Text(f"{_INDENT}- {plain(data['path'])}", "yellow")
    return Text(f"{_INDENT}+ {plain(data['path'])}  {decimal(int(data['size_bytes']))}", "green")


def _message(_: Event, data: Mapping[str, Any]) -> Text:
    return Text(f"{_INDENT}{plain(data['text'])}", "bold")


def _log(_: Event, data: Mapping[str, Any]) -> Text:
    return Text(f"{_INDENT}{plain(data['level'])}: {plain(data['message'])}", "yellow")


def _other(event: Event, data: Mapping[str, Any]) -> Text:
    return Text(cut(plain(f"{event.type} {data}" if data else event.type), SHOWN_OTHER), "dim")


def _outcome(data: Mapping[str, Any]) -> Text:
    took = f" in {duration(data['duration_ms'])}" if isinstance(data.get("duration_ms"), int) else ""
    return status(str(data["status"])).append(took, "dim")


_SHOWN: Mapping[str, Callable[[Event, Mapping[str, Any]], Text]] = {
    "run.started": _run_started,
    "run.resumed": _run_resumed,
    "run.requeued": _run_requeued,
    "run.finished": _run_finished,
    "step.started": _step_started,
    "step.finished": _step_finished,
    "tool.started": _tool_started,
    "tool.output": _tool_output,
    "tool.finished": _tool_finished,
    "artifact": _artifact,
    "message": _message,
    "log": _log,
}
