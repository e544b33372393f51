"""Events of a log as lines for people. Nothing that an agent printed reaches the terminal as a command."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.text import Text

from swissbrain.models import Event, Gap
from swissbrain.terminal import STYLES, duration, plain, status

SHOWN_ARGS = 100
"""A tool's arguments are cut to so many characters."""
_INDENT = "        "


def print_event(to: Console, item: Event | Gap) -> None:
    """A line for an event, or for events that are missing. That a tool succeeded is left to the end of its step."""
    if isinstance(item, Gap):
        to.print(Text(f"{'':12}  events {item.first} to {item.last} are no longer kept", "yellow"), soft_wrap=True)
        return
    if item.type == "tool.finished" and item.data.get("status") == "succeeded":
        return
    line = Text(_clock(item.ts), "dim").append("  ")
    show = _SHOWN.get(item.type, _other)
    to.print(line.append_text(show(item, item.data)), soft_wrap=True)


def _clock(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000).astimezone().strftime("%H:%M:%S.%f")[:-3]


def _run_started(_: Event, data: Mapping[str, Any]) -> Text:
    return Text(plain(f"run started on {data.get('worker')}, attempt {data.get('attempt')}"), "bold")


def _run_resumed(_: Event, data: Mapping[str, Any]) -> Text:
    return Text(plain(f"run goes on on {data.get('worker')}, attempt {data.get('attempt')}"), "bold")


def _run_requeued(_: Event, data: Mapping[str, Any]) -> Text:
    after = f", goes on in {duration(data['delay_ms'])}" if data.get("delay_ms") else ""
    return Text(plain(f"run given back: {data.get('reason')}{after}"), "yellow")


def _run_finished(_: Event, data: Mapping[str, Any]) -> Text:
    ended = str(data.get("status"))
    line = Text.assemble(("run ", "bold"), (plain(ended), f"bold {STYLES.get(ended, '')}"))
    error = data.get("error")
    return line.append(plain(f": {error.get('message')}")) if isinstance(error, dict) else line


def _step_started(event: Event, data: Mapping[str, Any]) -> Text:
    number = "" if event.step is None else f" {event.step + 1}"
    return Text.assemble((f"step{number}  ", "cyan"), (plain(data.get("name")), "bold"))


def _step_finished(event: Event, data: Mapping[str, Any]) -> Text:
    number = "" if event.step is None else f" {event.step + 1}"
    return Text.assemble((f"step{number}  ", "cyan"), _outcome(data))


def _tool_started(_: Event, data: Mapping[str, Any]) -> Text:
    args = data.get("args")
    shown = ", ".join(f"{name}={value!r}" for name, value in args.items()) if isinstance(args, dict) else ""
    shown = plain(shown)
    cut = shown if len(shown) <= SHOWN_ARGS else f"{shown[: SHOWN_ARGS - 1]}…"
    return Text(f"{_INDENT}{plain(data.get('tool'))}({cut})", "dim")


def _tool_output(_: Event, data: Mapping[str, Any]) -> Text:
    bar = (f"{_INDENT}│ ", "red" if data.get("stream") == "stderr" else "dim")
    return Text.assemble(bar, plain(data.get("text", "")))


def _tool_finished(_: Event, data: Mapping[str, Any]) -> Text:
    message = plain(f"  {data['message']}") if data.get("message") else ""
    return Text.assemble((f"{_INDENT}{plain(data.get('tool'))}: ", "dim"), _outcome(data), message)


def _artifact(_: Event, data: Mapping[str, Any]) -> Text:
    if data.get("deleted"):
        return Text(f"{_INDENT}- {plain(data.get('path'))}", "yellow")
    return Text(f"{_INDENT}+ {plain(data.get('path'))}  {decimal(int(data.get('size_bytes', 0)))}", "green")


def _message(_: Event, data: Mapping[str, Any]) -> Text:
    return Text(f"{_INDENT}{plain(data.get('text', ''))}", "bold")


def _log(_: Event, data: Mapping[str, Any]) -> Text:
    return Text(f"{_INDENT}{plain(data.get('level'))}: {plain(data.get('message'))}", "yellow")


def _other(event: Event, data: Mapping[str, Any]) -> Text:
    return Text(plain(f"{event.type} {data}" if data else event.type), "dim")


def _outcome(data: Mapping[str, Any]) -> Text:
    took = f" in {duration(data['duration_ms'])}" if isinstance(data.get("duration_ms"), int) else ""
    return status(str(data.get("status"))).append(took, "dim")


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
