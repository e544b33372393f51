"""Lines that a program has printed, from the events of a log."""

from collections.abc import Iterable

from swissbrain.models import Event


def lines_of(events: Iterable[Event]) -> list[str]:
    """Return the lines in events `tool.output` of one stream: parts are joined, and overwritten states left out."""
    lines: list[str] = []
    is_open = False
    for event in events:
        text = str(event.data.get("text", ""))
        if lines and event.data.get("replaces_line") is True:
            lines[-1] = text
        elif lines and is_open:
            lines[-1] += text
        else:
            lines.append(text)
        is_open = event.data.get("more") is True
    return lines
