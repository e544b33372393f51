"""Joining of events: parts of one text are one line, other events are not joined."""

import re
from typing import Any

import pytest

from swissbrain.models import Event, Gap
from tests.client.test_event_lines import FORBIDDEN, event, shown

WIDTH = 120
"""Columns of the terminal in `shown`."""


def lines(*items: Event | Gap) -> list[str]:
    """Return the lines without the times in front of them."""
    return [line[14:] for line in shown(*items).splitlines()]


def output(text: str, *, more: bool = False, step: int = 0, stream: str = "stdout") -> Event:
    return event("tool.output", step, stream=stream, text=text, **({"more": True} if more else {}))


def state(text: str, *, stream: str = "stderr", **data: bool) -> Event:
    return event("tool.output", stream=stream, text=text, replaces_line=True, **data)


def delta(text: str, step: int = 0, **data: Any) -> Event:
    return event("model.delta", step, text=text, **data)


def reply(text: str, *, more: bool = False, step: int = 0, **data: Any) -> Event:
    return event("model.message", step, text=text, **({"more": True} if more else {}), **data)


def test_parts_of_a_text_are_joined_into_one_line() -> None:
    parts = [output("a" * 3000, more=True), output("", more=True), output("b" * 3000, more=True), output("c")]
    assert lines(*parts, output("d")) == [f"        │ {'a' * 3000}{'b' * 3000}c", "        │ d"]
    messages = [event("message", text="one\n", more=True), event("message", text="\ntwo")]
    assert lines(*messages, output("x")) == ["        one", "", "two", "        │ x"]


@pytest.mark.parametrize(
    "other",
    [
        output("b", stream="stderr"),
        output("b", step=1),
        event("message", text="b"),
        event("tool.finished", tool="code", status="succeeded"),
        event("run.resumed", worker="w", attempt=2),
        event("of.a.later.release"),
        Gap(first=2, last=3),
    ],
)
def test_other_events_are_not_joined_to_an_open_line(other: Event | Gap) -> None:
    found = lines(output("a", more=True), other, output("c"))
    assert found[0] == "        │ a"
    assert found[-1] == "        │ c"


def test_a_line_without_a_next_part_is_ended() -> None:
    assert lines(output("a"), output("b")) == ["        │ a", "        │ b"]
    assert shown(output("a", more=True)).endswith("│ a\n")
    assert shown(delta("a")).endswith("a\n")
    assert lines(event("message", text="a", more="yes"), event("message", text="b")) == ["        a", "        b"]


def test_deltas_of_a_reply_are_joined_and_the_reply_is_not_repeated() -> None:
    pieces = [delta("He"), delta("llo"), delta("\n"), delta("all")]
    expected = ["        Hello", "all"]
    assert lines(*pieces, reply("Hello\nall"), output("x")) == [*expected, "        │ x"]
    assert lines(*pieces, reply("Hello", more=True), reply("\nall"), output("x")) == [*expected, "        │ x"]
    assert lines(*pieces, reply("Hello\nall"), delta("next")) == [*expected, "        next"]
    assert lines(*pieces, reply("Hello"), delta("next")) == [*expected, "        next"]


def test_a_reply_that_differs_from_the_deltas_is_shown_whole() -> None:
    assert lines(delta("lo"), reply("Hello")) == ["        lo", "        Hello"]
    assert lines(delta("Hello"), reply("Hello", step=1)) == ["        Hello", "        Hello"]
    assert lines(delta("Hello"), output("x"), reply("other")) == ["        Hello", "        │ x", "        other"]
    assert lines(delta("x", step=1), delta("y")) == ["        x", "        y"]


def test_a_reply_continues_the_line_of_its_deltas() -> None:
    assert lines(delta("He"), reply("He", more=True), reply("llo"), delta("x", n=1)) == ["        Hello", "        x"]
    assert lines(delta("He"), reply("Hello")) == ["        Hello"]
    assert lines(delta("He"), output("x"), reply("Hello")) == ["        He", "        │ x", "        llo"]
    assert lines(delta("Hello"), output("x"), reply("Hello"), output("y")) == [
        "        Hello",
        "        │ x",
        "        │ y",
    ]


def test_a_reply_of_calls_alone_takes_no_line() -> None:
    assert lines(event("model.started", n=0, model="m", purpose="turn"), reply("", calls=1), output("x")) == [
        "        │ x"
    ]
    assert lines(reply("", problem="it is cut\x1b[1m"), output("x"))[0].strip() == "the reply cannot be used: it is cut"


def test_reasoning_is_marked_and_not_part_of_the_reply() -> None:
    thoughts = [delta("a", n=1, kind="reasoning"), delta("b", n=1, kind="reasoning")]
    assert lines(*thoughts, delta("So", n=1, kind="text"), reply("So", n=1)) == ["  think │ ab", "        So"]
    late = [delta("So", n=1, kind="text"), delta("hm", n=1, kind="reasoning")]
    assert lines(*late, reply("So, yes", n=1)) == ["        So", "  think │ hm", "        , yes"]


@pytest.mark.parametrize(
    "cut",
    [
        event("model.retry", None, n=0, model="m", reason="r", next_model="o", until_ms=0),
        event("run.resumed", None, worker="w", attempt=2),
        event("run.retried", None, after="failed"),
        event("model.started", None, n=0, model="m", purpose="turn"),
        Gap(first=2, last=3),
    ],
)
def test_deltas_of_a_try_that_is_void_do_not_count_for_the_next_one(cut: Event | Gap) -> None:
    found = lines(delta("He", n=0), cut, delta("He", n=0), delta("y", n=0), reply("Hey", n=0), output("x"))
    assert (found[0], found[-2:]) == ("        He", ["        Hey", "        │ x"])
    assert lines(delta("Hello", n=0), cut, reply("Hello", n=0))[-1] == "        Hello"


def test_an_escape_sequence_split_over_parts_is_removed() -> None:
    for split in range(1, 4):
        pieces = ["\x1b[31m"[:split], "\x1b[31m"[split:]]
        for items in ([delta(piece) for piece in pieces], [output(piece, more=True) for piece in pieces]):
            assert not FORBIDDEN.search(shown(*items))


def test_a_line_that_replaces_another_is_a_line_of_its_own_in_a_file() -> None:
    states = [output("10%", stream="stderr"), state("50%"), state("100%"), output("done")]
    assert lines(*states) == [*(f"    err │ {text}" for text in ("10%", "50%", "100%")), "        │ done"]


def rows(*items: Event | Gap) -> list[str]:
    """Return the rows that a terminal of 120 columns shows, without the times in front of them."""
    screen, row = [""], 0
    for piece in re.split(r"(\x1b\[\d*\w|\n)", shown(*items, colours=True)):
        if piece == "\n":
            row += 1
            screen.extend([""] * (row + 1 - len(screen)))
        elif piece == "\x1b[1A":
            row -= 1
        elif piece == "\x1b[2K":
            screen[row] = ""
        elif not piece.startswith("\x1b"):
            while len(screen[row] + piece) > WIDTH:
                screen[row], piece = (screen[row] + piece)[:WIDTH], (screen[row] + piece)[WIDTH:]
                row += 1
                screen.extend([""] * (row + 1 - len(screen)))
            screen[row] += piece
    return [each[14:].removeprefix("        │ ").removeprefix("    err │ ") for each in screen if each]


def test_a_line_that_replaces_another_is_drawn_in_its_place_on_a_terminal() -> None:
    bar = [output("10%", stream="stderr"), state("50%"), state("100%")]
    assert rows(output("before"), *bar, output("done")) == ["before", "100%", "done"]
    assert rows(output("0%", stream="stderr", more=True), output("", stream="stderr"), state("9%")) == ["9%"]
    assert rows(state("a", more=True), output("b", stream="stderr"), state("c")) == ["c"]
    assert rows(output("50%", stream="stderr"), output("b"), state("100%")) == ["100%", "b"]
    assert rows(output("\u2588" * 110, stream="stderr"), state("x" * 300), state("end")) == ["end"]


@pytest.mark.parametrize(
    "other",
    [
        event("tool.finished", tool="code", status="failed", message="b"),
        event("of.a.later.release", text="b"),
        event("model.message", text="", problem="b"),
        Gap(first=2, last=3),
    ],
)
def test_a_row_before_another_event_is_not_drawn_again(other: Event | Gap) -> None:
    found = rows(output("50%", stream="stderr"), other, state("100%"))
    assert len(found) == 3
    assert (found[0], found[2]) == ("50%", "100%")


def test_a_wide_character_that_begins_a_row_leaves_a_column_of_the_row_before_it_empty() -> None:
    first, second = "x" + "表" * 47, "表x" + "表" * 58  # with the 24 columns in front of it, 119 of 120 columns each
    found = shown(output(first + second + "表", stream="stderr"), state("end"), colours=True)
    assert found.count("\x1b[1A\x1b[2K") == 3


def test_only_output_of_tools_replaces_lines() -> None:
    assert len(rows(event("message", text="a"), event("message", text="b", replaces_line=True))) == 2
    assert rows(output("a", stream="stderr"), event("tool.output", stream="stderr", text="b", replaces_line="x")) == [
        "a",
        "b",
    ]
