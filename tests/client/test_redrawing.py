"""Overwritten lines on terminals of several widths: the screen shows the last state of each line, and nothing else."""

import io
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from infra.contract.execution import LinePart
from infra.local_executor.output import LineSplitter
from swissbrain.cli.event_lines import EventLines
from swissbrain.models import Event
from tests.support.screen import screen_rows

PIECES = st.sampled_from(["\r", "\n", "\r\n", "a", "b c", "10%", "表", "😀" * 3, "x" * 30, "é", "\t", "表" * 15, "."])


def shown(parts: list[LinePart], width: int, *, colours: bool) -> list[str]:
    file = io.StringIO()
    system: Literal["standard"] | None = "standard" if colours else None
    console = Console(file=file, force_terminal=True, width=width, height=500, color_system=system, highlight=False)
    with EventLines(console) as lines:
        for part in parts:
            data = {"stream": "stdout", "text": part.text, "more": part.more, "replaces_line": part.replaces}
            lines.show(Event(seq=1, ts=1000, type="tool.output", step=0, data=data))
    return screen_rows(file.getvalue().replace("\n", "\r\n"), width)


def last_states(text: str) -> list[LinePart]:
    """Return each line with its last state; an empty state overwrites nothing."""
    *lines, last = [next(filter(None, reversed(line.split("\r"))), "") for line in text.split("\n")]
    return [LinePart(line) for line in [*lines, *([last] if last else [])]]


@pytest.mark.parametrize("colours", [True, False])
@pytest.mark.parametrize("width", [20, 25, 80, 200])
@settings(max_examples=25)
@given(st.lists(st.tuples(PIECES, st.sampled_from([0.0, 0.1, 0.25, 1.0])), max_size=25))
def test_the_screen_shows_the_last_state_of_each_line(
    width: int, colours: bool, output: list[tuple[str, float]]
) -> None:
    splitter, parts, now_s = LineSplitter(), list[LinePart](), 0.0
    for text, pause_s in output:
        parts += splitter.feed(text.encode(), now_s)
        now_s += pause_s
        parts += splitter.due(now_s)
    parts += splitter.feed(b"", now_s, final=True)
    expected = shown(last_states("".join(text for text, _ in output)), width, colours=colours)
    assert shown(parts, width, colours=colours) == expected
