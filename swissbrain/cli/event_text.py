"""One event of a log as text for people. Escape sequences in the output of agents never reach the terminal."""

from collections.abc import Callable, Mapping
from typing import Any

from rich.filesize import decimal
from rich.text import Text

from swissbrain.cli.screen import STYLES, status
from swissbrain.cli.terminal import clock, duration, plain, truncate
from swissbrain.models import Event

MAX_ARGS_CHARS = 100
MAX_UNKNOWN_CHARS = 1000
"""Limit for events of an unknown type, or with unexpected fields."""
INDENT = "        "


def describe(event: Event) -> Text:
    """Return the line of an event, without its time. An event with unexpected fields is shown raw."""
    try:
        return FORMATTERS.get(event.type, _unknown)(event, event.data)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return _unknown(event, event.data)


def _run_started(_: Event, data: Mapping[str, Any]) -> Text:
    return Text(plain(f"run started on {data['worker']}, attempt {data['attempt']}"), "bold")


def _run_resumed(_: Event, data: Mapping[str, Any]) -> Text:
    return Text(plain(f"run continues on {data['worker']}, attempt {data['attempt']}"), "bold")


def _run_requeued(_: Event, data: Mapping[str, Any]) -> Text:
    after = f", continues in {duration(data['delay_ms'])}" if data.get("delay_ms") else ""
    why = f" ({data['message']})" if data.get("message") else ""
    return Text(plain(f"run requeued: {data['reason']}{why}{after}"), "yellow")


def _run_retried(_: Event, data: Mapping[str, Any]) -> Text:
    return Text(plain(f"run queued again after it {_END_PHRASES.get(data['after'], data['after'])}"), "bold")


def _run_forked(_: Event, data: Mapping[str, Any]) -> Text:
    return Text(plain(f"run continues from step {data['from_step'] + 1} of {data['run_id']}"), "bold")


def _run_continued(_: Event, data: Mapping[str, Any]) -> Text:
    return Text(plain(f"run continues from the end of {data['run_id']}"), "bold")


def _run_waiting(_: Event, data: Mapping[str, Any]) -> Text:
    question = f": {data['question']}" if data.get("question") else ""
    more = len(data.get("requests", ())) - 1
    others = "" if more < 1 else " (and another request)" if more == 1 else f" (and {more} other requests)"
    return Text(plain(f"run waits for input{question}{others}"), "magenta")


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
    # One line each, so that no name can forge another step.
    names = (" ".join(plain(step["name"]).split()) for step in data["steps"])
    lines = [f"\n{INDENT}{number}  {name}" for number, name in enumerate(names, first)]
    return Text.assemble(("plan", "cyan"), *lines)


def _step_started(event: Event, data: Mapping[str, Any]) -> Text:
    number = "" if event.step is None else f" {event.step + 1}"
    return Text.assemble((f"step{number}  ", "cyan"), (plain(data["name"]), "bold"))


def _step_finished(event: Event, data: Mapping[str, Any]) -> Text:
    number = "" if event.step is None else f" {event.step + 1}"
    reason = plain(f"  {data['message']}") if data.get("message") else ""
    return Text.assemble((f"step{number}  ", "cyan"), _outcome(data), reason)


def _tool_started(_: Event, data: Mapping[str, Any]) -> Text:
    args = ", ".join(f"{name}={value!r}" for name, value in data["args"].items())
    return Text(f"{INDENT}{plain(data['tool'])}({truncate(plain(args), MAX_ARGS_CHARS)})", "dim")


def _tool_output(_: Event, data: Mapping[str, Any]) -> Text:
    # Marked by a word, because a file has no colours and not all people see red.
    bar = ("    err │ ", "red") if data.get("stream") == "stderr" else (f"{INDENT}│ ", "dim")
    return Text.assemble(bar, (plain(data["text"]), TEXT_STYLES["tool.output"]))


def _tool_finished(_: Event, data: Mapping[str, Any]) -> Text:
    message = plain(f"  {data['message']}") if data.get("message") else ""
    return Text.assemble((f"{INDENT}{plain(data['tool'])}: ", "dim"), _outcome(data), message)


def _artifact(_: Event, data: Mapping[str, Any]) -> Text:
    if data.get("deleted"):
        return Text(f"{INDENT}- {plain(data['path'])}", "yellow")
    kind = f"  {plain(data['content_type'])}" if data.get("content_type") else ""
    return Text(f"{INDENT}+ {plain(data['path'])}  {decimal(int(data['size_bytes']))}{kind}", "green")


def _text(event: Event, data: Mapping[str, Any]) -> Text:
    bar = "  think │ " if data.get("kind") == "reasoning" else INDENT
    return Text(f"{bar}{plain(data['text'])}", style(event))


def style(event: Event) -> str:
    """Return the style of an event's text."""
    return "dim" if event.data.get("kind") == "reasoning" else TEXT_STYLES[event.type]


def _model_retry(_: Event, data: Mapping[str, Any]) -> Text:
    again = f"asks {data['next_model']} at {clock(int(data['until_ms']))}"
    return Text(f"{INDENT}{plain(data['model'])}: {plain(data['reason'])}; {plain(again)}", "yellow")


def _context_compacted(_: Event, data: Mapping[str, Any]) -> Text:
    return Text(f"{INDENT}models read a summary of the first {int(data['before'])} replies from now on", "dim")


def _limit_near(_: Event, data: Mapping[str, Any]) -> Text:
    used = f"{float(data['used']):.6g} of {float(data['allowed']):.6g}"
    return Text(f"{INDENT}limit near: {used} {plain(data['limit'])}", "yellow")


def _log(_: Event, data: Mapping[str, Any]) -> Text:
    return Text(f"{INDENT}{plain(data['level'])}: {plain(data['message'])}", "yellow")


def _unknown(event: Event, data: Mapping[str, Any]) -> Text:
    return Text(truncate(plain(f"{event.type} {data}" if data else event.type), MAX_UNKNOWN_CHARS), "dim")


def _outcome(data: Mapping[str, Any]) -> Text:
    took = f" in {duration(data['duration_ms'])}" if isinstance(data.get("duration_ms"), int) else ""
    return status(str(data["status"])).append(took, "dim")


_END_PHRASES = {"failed": "failed", "cancelled": "was cancelled"}
TEXT_STYLES: Mapping[str, str] = {"tool.output": "", "message": "bold", "model.delta": "", "model.message": ""}
"""Types whose text may be split into several events, and the style of the text."""
FORMATTERS: Mapping[str, Callable[[Event, Mapping[str, Any]], Text]] = {
    "run.started": _run_started,
    "run.resumed": _run_resumed,
    "run.requeued": _run_requeued,
    "run.retried": _run_retried,
    "run.forked": _run_forked,
    "run.continued": _run_continued,
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
    "model.retry": _model_retry,
    "context.compacted": _context_compacted,
    "limit.near": _limit_near,
    "model.delta": _text,
    "model.message": _text,
}
