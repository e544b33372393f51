"""Tables at every width: an id or a path is whole, whatever the terminal."""

import io
import re

import msgspec
import pytest
from rich.console import Console

from swissbrain.cli.layout import Column, Details, Rows
from swissbrain.cli.screen import line
from swissbrain.cli.tables import attempts_table, files_table, queue_table, run_table, runs_table, steps_table
from swissbrain.models import Attempt, File, QueueDepths, Run, RunSummary, Step
from tests.client import scripted_server

WIDTHS = (20, 40, 60, 80, 100, 200)
RUN_ID = "run_0123456789abcdef0123456789abcdef"
PATH = "results/2026/a folder/" + "x" * 60 + ".csv"


def printed(table: object, width: int) -> list[str]:
    out = Console(file=io.StringIO(), width=width, highlight=False)
    out.print(table, soft_wrap=True)
    assert isinstance(out.file, io.StringIO)
    return [text.rstrip() for text in out.file.getvalue().splitlines()]


def summary(**changes: object) -> RunSummary:
    return msgspec.convert(scripted_server.summary(RUN_ID, **changes), RunSummary)


@pytest.mark.parametrize("width", WIDTHS)
def test_an_id_is_whole_at_every_width(width: int) -> None:
    failed = summary(status="failed", error={"code": "executor_unavailable", "message": "m"}, title="t" * 500)
    run = msgspec.convert(scripted_server.run(RUN_ID, metadata={"k" * 64: "v" * 512}), Run)
    for table in (runs_table([failed, summary(title="short")]), run_table(run)):
        lines = printed(table, width)
        assert RUN_ID in "\n".join(lines)
        # Only an id that is wider than the terminal itself, which wraps it without adding anything.
        assert [text for text in lines if len(text) > max(width, len(RUN_ID) + 2)] == []


@pytest.mark.parametrize("width", WIDTHS)
def test_a_path_is_whole_at_every_width(width: int) -> None:
    files = [File(path=path, size_bytes=10**9, modified_ms=1_790_000_000_000) for path in (PATH, "a")]
    lines = printed(files_table(files), width)
    assert any(text.lstrip().startswith(PATH) for text in lines)
    assert "1.0 GB" in "\n".join(lines)


@pytest.mark.parametrize("width", WIDTHS[1:])
def test_every_value_of_a_row_is_shown_at_every_width(width: int) -> None:
    attempt = Attempt(
        fence=1, attempt=2, worker="w-" + "x" * 10, started_ms=5, ended_ms=65_005, outcome="lease_expired"
    )
    shown = " ".join(printed(attempts_table([attempt]), width))
    assert all(text in shown for text in ("w-xxxxxxxxxx", "1m 5s", "lease_expired"))
    depths = QueueDepths(pending=1, ready=22, delayed=3, running=4, dead=5)
    assert "22" in " ".join(printed(queue_table(depths), width))


def test_a_list_of_runs_takes_two_lines_for_a_run_at_80_columns() -> None:
    failed = summary(
        status="failed",
        error={"code": "exit_code", "message": "m"},
        finished_ms=1_790_000_003_210,
        worked_ms=3_210,
        title="draw the chart of all planets",
    )
    first, second = printed(runs_table([failed]), 80)
    assert first == f"{RUN_ID}  status failed: exit_code"
    assert re.fullmatch(
        r"  created 2026-\d\d-\d\d \d\d:\d\d:\d\d  took 3\.2 s  title draw the chart of all planets", second
    )
    assert len(printed(runs_table([failed]), 200)) == 2


def test_a_truncated_title_has_a_mark() -> None:
    (_, row) = printed(runs_table([summary(title="t" * 500)]), 120)
    assert row.endswith("t…")
    assert len(row) <= 120
    assert "…" not in "\n".join(printed(runs_table([summary(title="t" * 50)]), 200))


def test_wide_characters_are_measured_in_columns() -> None:
    rows = Rows([Column("id"), Column("title", flexible=True)], [[line("中" * 10), line("標題" * 30)]])
    for width in WIDTHS:
        assert "中" * 10 in "\n".join(printed(rows, width))


def test_a_line_break_in_a_value_cannot_forge_a_row() -> None:
    lines = printed(runs_table([summary(title=f"a\n{RUN_ID}")]), 200)
    assert len(lines) == 2
    assert lines[1].endswith(f"a {RUN_ID}")


@pytest.mark.parametrize("width", range(20, 120))
def test_no_line_of_a_table_is_wider_than_the_terminal(width: int) -> None:
    columns = [Column("id"), Column("one", flexible=True), Column("two"), Column("three", flexible=True)]
    rows = Rows(columns, [[line("i" * 10), line("a" * 50), line("b" * 15), line("c" * 40)]])
    lines = printed(rows, width)
    assert max(map(len, lines)) <= width
    assert "i" * 10 in " ".join(lines)


def test_an_empty_table_shows_its_columns() -> None:
    assert printed(runs_table([]), 200) == ["run  status  created  took  title"]
    assert printed(Details([]), 80) == []


def test_steps_are_counted_from_one_with_results_and_errors() -> None:
    base = {"name": "shell", "tool": "shell", "status": "pending", "started_ms": None, "duration_ms": None}
    none = {"result": None, "kept": None, "error": None}
    done = {
        **base,
        **none,
        "index": 0,
        "name": "count",
        "status": "succeeded",
        "duration_ms": 61_000,
        "result": {"n": 1},
    }
    failed = {**base, **none, "index": 1, "status": "failed", "error": {"code": "exit_code", "message": "exit code 7"}}
    steps = [msgspec.convert(each, Step) for each in (done, failed, {**base, **none, "index": 2})]
    lines = printed(steps_table(steps), 100)
    assert lines[1].split() == ["1", "count", "[shell]", "succeeded", "1m", "1s", '{"n":1}']
    assert lines[2].split() == ["2", "shell", "failed", "exit_code:", "exit", "code", "7"]
    assert lines[3].split() == ["3", "shell", "pending"]
