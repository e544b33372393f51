"""Logs and runs as text for people: readable for any content, without foreign escape sequences."""

import io
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from swissbrain.cli.event_lines import EventLines
from swissbrain.cli.event_text import FORMATTERS, MAX_ARGS_CHARS, MAX_UNKNOWN_CHARS
from swissbrain.cli.tables import MAX_PROMPT_CHARS, files_table, run_table, runs_table
from swissbrain.cli.terminal import duration, plain, printed, truncate
from swissbrain.models import Event, File, Gap, PlanStep, Run, RunError, RunSummary
from tests.client import scripted_server

HOSTILE = [
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07text",
    "\x1b]8;;http://evil.example\x1b\\link\x1b]8;;\x1b\\",
    "\x1b]52;c;ZXZpbA==",
    "\x1b[2J\x1b[1;1H",
    "\x1bP1$r\x1b\\",
    "\x1bc",
    "\x9b31m",
    "\x9d0;title\x9c",
    "\u202egnp.exe",
    "\u2066\u2067\u2068\u2069\u200e\u200f\u061c",
    "bell\x07 back\x08\x08 return\rover null\0 del\x7f",
    "\x85\u2028\u2029\x0b\x0c",
    "[red]x[/]",
    "[/x]",
    "[link=http://evil.example]x[/link]",
    "\\[x] :smile: [@click=quit]",
    "é😀 \t tab",
    "",
]
JUNK: list[Any] = [None, True, -1, 1.5, 2**64, "", "x", [], ["x"], {}, {"x": 1}, {"message": []}]
FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
FIELDS = ("status", "error", "name", "tool", "args", "text", "stream", "message", "path", "deleted", "size_bytes")
MORE = ("worker", "attempt", "reason", "delay_ms", "duration_ms", "level", "more", "n", "kind", "problem", "call")
ALL = (*FIELDS, *MORE, "first", "steps", "question", "input", "after", "run_id", "from_step", "requests", "model")
TYPES = [*FORMATTERS, "of.a.later.release"]


def shown(*items: Any, colours: bool = False) -> str:
    """Return the printed text: without colours as for a file, or with colours as for a terminal."""
    out = Console(
        file=io.StringIO(),
        force_terminal=colours,
        color_system="truecolor" if colours else None,
        width=120,
        highlight=False,
    )
    with EventLines(out) as lines:
        for item in items:
            if isinstance(item, Event | Gap):
                lines.show(item)
            else:
                out.print(item)
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def event(kind: str, /, step: int | None = 0, ts: int = 1_790_000_000_123, **data: Any) -> Event:
    return Event(seq=1, ts=ts, type=kind, step=step, data=data)


def text(kind: str, /, step: int | None = 0, **data: Any) -> str:
    """Return the line without its time."""
    line = shown(event(kind, step, **data))
    assert re.match(r"\d\d:\d\d:\d\d\.123  ", line)
    return line[14:].rstrip("\n")


def test_each_event_is_one_line() -> None:
    assert text("run.started", worker="w-1", attempt=1) == "run started on w-1, attempt 1"
    assert text("run.resumed", worker="w-1", attempt=2) == "run continues on w-1, attempt 2"
    assert text("run.requeued", reason="lost", delay_ms=1500) == "run requeued: lost, continues in 1.5 s"
    assert text("run.requeued", reason="lease_expired", worker="w", attempt=1) == "run requeued: lease_expired"
    unable = text("run.requeued", reason="unable", message="no node", delay_ms=500)
    assert unable == "run requeued: unable (no node), continues in 500 ms"
    assert text("run.finished", status="succeeded") == "run succeeded"
    assert text("run.finished", status="failed", error={"code": "c", "message": "m"}) == "run failed: m"
    assert text("step.started", name="chart", tool="code") == "step 1  chart"
    assert text("step.finished", 1, status="succeeded", duration_ms=59) == "step 2  succeeded in 59 ms"
    assert text("step.finished", None, status="failed") == "step  failed"
    assert text("tool.started", tool="code", args={"a": "x\n", "b": 1}) == "        code(a='x\\n', b=1)"
    assert text("tool.output", stream="stdout", text="hello") == "        │ hello"
    assert text("tool.finished", tool="code", status="failed", duration_ms=61_000, message="exit code 7") == (
        "        code: failed in 1m 1s  exit code 7"
    )
    assert text("artifact", path="a/b", size_bytes=2000) == "        + a/b  2.0 kB"
    assert text("artifact", path="a", size_bytes=2000, content_type="image/png\n") == "        + a  2.0 kB  image/png"
    assert text("artifact", path="a/b", deleted=True) == "        - a/b"
    assert text("message", text="hello") == "        hello"
    assert text("log", level="warning", message="m") == "        warning: m"
    assert text("run.waiting", None) == "run waits for input"
    assert text("run.waiting", None, question="Which one?") == "run waits for input: Which one?"
    assert text("run.input", None, request="q", decision="answered", by="ada", input="the second") == (
        "answered by ada  the second"
    )
    assert text("run.input", None, request="q", decision="expired") == "expired"
    assert text("message.received", None, text="hurry", by="ada") == "message by ada  hurry"
    assert text("run.retried", None, after="failed") == "run queued again after it failed"
    assert text("run.retried", None, after="cancelled") == "run queued again after it was cancelled"
    assert text("run.forked", None, run_id="run_2", from_step=2) == "run continues from step 3 of run_2"
    assert text("run.continued", None, run_id="run_2") == "run continues from the end of run_2"
    steps = [{"name": "read", "tool": "file_read"}, {"name": "draw"}]
    assert text("plan.created", None, steps=steps).splitlines() == ["plan", f"{'':22}1  read", f"{'':22}2  draw"]
    forged = [{"name": "read\n  2  forged"}]
    assert text("plan.created", None, steps=forged).splitlines()[1:] == [f"{'':22}1  read 2 forged"]
    assert text("step.finished", 1, status="failed", duration_ms=59, message="no\x1b[1m file") == (
        "step 2  failed in 59 ms  no file"
    )
    assert text("plan.created", None, steps=steps, first=3).splitlines()[1] == f"{'':22}4  read"
    assert text("model.delta", text="hel") == "        hel"
    assert text("model.message", text="hello", model="m") == "        hello"
    retry = event("model.retry", n=1, model="large", reason="busy", next_model="small", until_ms=1_790_000_000_123)
    assert re.fullmatch(r"        large: busy; asks small at \d\d:\d\d:\d\d\.123", shown(retry)[14:].rstrip())
    assert text("context.compacted", before=20) == "        models read a summary of the first 20 replies from now on"
    assert text("limit.near", limit="turns", used=40, allowed=50.0) == "        limit near: 40 of 50 turns"
    two = text("run.waiting", None, question="Which one?", requests=[{}, {}])
    assert two == "run waits for input: Which one? (and another request)"
    assert text("of.a.later.release", x=1) == "of.a.later.release {'x': 1}"
    assert shown(event("tool.finished", tool="code", status="succeeded")) == ""
    assert shown(Gap(first=3, last=7)).strip() == "events 3 to 7 are no longer kept"


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("run.started", {}),
        ("run.finished", {"state": "x"}),
        ("run.finished", {"status": "failed", "error": "text"}),
        ("run.requeued", {"reason": "x", "delay_ms": "soon"}),
        ("step.started", {}),
        ("step.finished", {"duration_ms": 1}),
        ("tool.started", {"tool": "code", "args": [1]}),
        ("tool.output", {"stream": "stdout"}),
        ("tool.finished", {"status": "failed"}),
        ("artifact", {"path": "a", "size_bytes": "big"}),
        ("artifact", {"size_bytes": 1}),
        ("message", {}),
        ("log", {"n": 1}),
        ("run.input", {}),
        ("run.retried", {"after": {}}),
        ("run.forked", {"run_id": "x", "from_step": "y"}),
        ("plan.created", {"steps": [{}]}),
        ("plan.created", {"steps": 3}),
        ("model.delta", {}),
        ("model.message", {"model": "x"}),
    ],
)
def test_events_with_unexpected_fields_are_shown_raw(kind: str, data: dict[str, Any]) -> None:
    assert text(kind, **data) == (f"{kind} {data}" if data else kind)


@pytest.mark.parametrize("kind", TYPES)
def test_no_field_of_an_event_reaches_the_terminal_as_an_escape_sequence(kind: str) -> None:
    for value in [*HOSTILE, *JUNK]:
        for field in ALL:
            base = {
                "status": "failed",
                "tool": "t",
                "args": {},
                "text": "t",
                "path": "p",
                "size_bytes": 1,
                "reason": "r",
            }
            for data in ({field: value}, {**base, field: value}, {field: {"message": value, str(value): value}}):
                assert not FORBIDDEN.search(shown(event(kind, **data)))


@pytest.mark.parametrize("value", HOSTILE)
def test_only_colours_of_the_command_reach_a_terminal(value: str) -> None:
    items = [Event(seq=1, ts=1, type=kind, data=dict.fromkeys(ALL, value)) for kind in (*TYPES, value)]
    items += [event(kind, text=value, message=value, level=value, path=value, deleted=1) for kind in TYPES]
    painted = shown(*items, colours=True)
    assert not FORBIDDEN.search(re.sub(r"\x1b\[[0-9;]*m", "", painted))
    # Colours of the value would be those that we never use.
    assert "\x1b[31mred" not in painted


@given(
    st.text(),
    st.text(),
    st.dictionaries(st.sampled_from(ALL), st.text() | st.integers() | st.none()),
)
def test_any_text_is_shown(kind: str, value: str, data: dict[str, Any]) -> None:
    for each in (kind, *TYPES):
        assert not FORBIDDEN.search(shown(event(each, **{"text": value, **data})))


@pytest.mark.parametrize("ts", [0, -1, 2**63, -(2**63), 10**15])
def test_any_time_is_shown(ts: int) -> None:
    assert shown(event("message", ts=ts, text="hello")).endswith("hello\n")
    assert "x" in shown(runs_table([summary(created_ms=ts, finished_ms=ts, worked_ms=ts)]))


def test_a_text_of_several_lines_cannot_forge_an_event() -> None:
    forged = shown(event("tool.output", stream="stdout", text="a\r\n12:00:00.000  run succeeded\n"))
    assert forged.splitlines()[1] == f"{'':14}12:00:00.000  run succeeded"
    assert len(forged.splitlines()) == 2


def test_long_texts_are_truncated() -> None:
    assert len(text("tool.started", tool="t", args={"content": "x" * 1_000_000})) < MAX_ARGS_CHARS + 20
    assert len(text("of.a.later.release", content="x" * 1_000_000)) == MAX_UNKNOWN_CHARS
    table = shown(run_table(run(prompt="x" * 100_000)))
    assert table.count("x") == MAX_PROMPT_CHARS - 1
    assert truncate("abc", 3) == "abc"
    assert truncate("abcd", 3) == "ab…"


def summary(**changes: Any) -> RunSummary:
    return msgspec.convert(scripted_server.summary(**changes), RunSummary)


def run(**changes: Any) -> Run:
    return msgspec.convert(scripted_server.run(**changes), Run)


@pytest.mark.parametrize("value", HOSTILE)
def test_tables_contain_no_escape_sequences(value: str) -> None:
    plan = [PlanStep(tool=value or "x", name=value or None)]
    whole = run(run_id=value, status=value, prompt=value, metadata={value: value})
    failed = run_table(
        Run(
            **{name: getattr(whole, name) for name in whole.__struct_fields__}
            | {"error": RunError(code=value, message=value, step=1), "plan": plan}
        )
    )
    listed = runs_table([summary(run_id=value, status=value, title=value)])
    files = files_table([File(path=value, size_bytes=1, modified_ms=2**62)])
    for table in (failed, listed, files):
        assert not FORBIDDEN.search(shown(table))
        assert not FORBIDDEN.search(re.sub(r"\x1b\[[0-9;]*m", "", shown(table, colours=True)))
    if value.startswith(("[", "\\")):
        assert value in shown(failed)
        assert value in shown(listed)
        assert value in shown(files)


def test_durations_have_a_suitable_unit() -> None:
    assert [duration(ms) for ms in (0, 999, 1000, 59_900, 60_000, 3_600_000)] == [
        "0 ms",
        "999 ms",
        "1.0 s",
        "59.9 s",
        "1m 0s",
        "1h 0m",
    ]
    assert plain("\x1b[1mbold\x1b[0m\r\n") == "bold\n"


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("\x1b(B\x1b[mplain \x1b[1mbold\x1b(B\x1b[m\x0f", "plain bold"),  # as `tput sgr0` prints it
        ("\x1b7saved\x1b8 \x1b=keypad\x1b> \x1bMup", "saved keypad up"),
        ("\x1bP1$r0m\x1b\\state\x1b_text\x1b\\ \x1b]0;title\x1b\\end", "state end"),
        ("\abell\a", "bell"),
        ("\fpage\vtwo", " page two"),
        ("|\b/\b-\b\\", "\\"),
        ("  0%\b\b\b\b 50%\b\b\b\b100%", "100%"),
        ("N\bNA\bAM\bME\bE _\bu", "NAME u"),
        ("abc\b\b", "abc"),
        ("\b\b\bx\x1b[31m\by", "y"),
    ],
)
def test_output_looks_as_on_a_terminal(output: str, expected: str) -> None:
    assert printed(output) == expected


@pytest.mark.parametrize(
    "output", ["\x1b", "\x1b[31", "\x1bPno end", "\x1b(", "\x1b\b[2J", "\x1b\x1b[1m[2J", "\x9b2J", "a\0b"]
)
def test_no_unfinished_escape_sequence_reaches_the_terminal(output: str) -> None:
    assert not FORBIDDEN.search(printed(output))
