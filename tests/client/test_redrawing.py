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
    return drawn([("stdout", part) for part in parts], width, colours=colours)


def drawn(parts: list[tuple[str, LinePart]], width: int, *, colours: bool, height: int = 500) -> list[str]:
    file = io.StringIO()
    system: Literal["standard"] | None = "standard" if colours else None
    console = Console(file=file, force_terminal=True, width=width, height=height, color_system=system, highlight=False)
    with EventLines(console) as lines:
        for stream, part in parts:
            data = {"stream": stream, "text": part.text, "more": part.more, "replaces_line": part.replaces}
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


def in_place(parts: list[tuple[str, LinePart]]) -> list[tuple[str, LinePart]]:
    """Return the lines that are to be seen at the end: each where it was begun, with its last state."""
    lines, open_stream = list[tuple[str, str]](), ""
    for stream, part in parts:
        of_stream = [number for number, (of, _) in enumerate(lines) if of == stream]
        is_last = of_stream[-1:] == [len(lines) - 1]
        if part.replaces and of_stream and (is_last or not part.more):
            lines[of_stream[-1]] = stream, part.text
        elif open_stream == stream and not part.replaces:
            lines[-1] = stream, lines[-1][1] + part.text
        else:
            lines.append((stream, part.text))
        open_stream = stream if part.more else ""
    return [(stream, LinePart(text)) for stream, text in lines]


@pytest.mark.parametrize("width", [20, 80])
@settings(max_examples=50)
@given(st.lists(st.tuples(st.booleans(), PIECES, st.sampled_from([0.0, 0.1, 0.25, 1.0])), max_size=25))
def test_both_streams_are_overwritten_each_in_its_place(width: int, output: list[tuple[bool, str, float]]) -> None:
    splitters = {"stdout": LineSplitter(), "stderr": LineSplitter()}
    parts, now_s = list[tuple[str, LinePart]](), 0.0
    for is_error, text, pause_s in output:
        stream = "stderr" if is_error else "stdout"
        parts += [(stream, part) for part in splitters[stream].feed(text.encode(), now_s)]
        now_s += pause_s
        for name, splitter in splitters.items():
            parts += [(name, part) for part in splitter.due(now_s)]
    for name, splitter in splitters.items():
        parts += [(name, part) for part in splitter.feed(b"", now_s, final=True)]
    assert drawn(parts, width, colours=False) == drawn(in_place(parts), width, colours=False)


def test_a_line_that_has_left_the_terminal_is_drawn_below() -> None:
    def state(text: str) -> tuple[str, LinePart]:
        return "stderr", LinePart(text, replaces=text != "1%", end="\r")

    lines = [("stdout", LinePart(f"line {number}")) for number in range(9)]
    rows = drawn([state("1%"), *lines[:4], state("2%"), *lines, state("3%")], 80, colours=False, height=8)
    assert [row.rpartition("│ ")[2].strip() for row in rows] == [
        "2%",
        *(f"line {number}" for number in (*range(4), *range(9))),
        "3%",
    ]
