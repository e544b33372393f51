"""Output that no line end follows: begins of lines, and lines that a program overwrites."""

import asyncio
from collections.abc import Callable, Sequence
from itertools import pairwise, takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.contract.execution import Command, ExecLimits, LinePart
from infra.local_executor import executor, output
from infra.local_executor.output import AGE_S, PART_CHARS, SILENCE_S, STATE_S, LineSplitter
from tests.local_executor.rig import MB, RUN_ID, Bench
from tests.support.waiting import until
from worker.toolkit.execution import LOGGED_BYTES

PIECES = ["\r", "\n", "\r\n", "a", "10%", "ü😀", "\xff", "\0", "x" * PART_CHARS, "y" * (PART_CHARS + 1)]

UNTIL_SEEN = "while [ ! -e 'seen {}' ]; do sleep 0.05; done"
"""Piece of a program: waits until a part of its output has been passed on."""


def mark_seen(bench: Bench) -> Callable[[str, str], None]:
    """Return a function that tells the program which parts have been passed on."""
    return lambda _, text: (bench.files.directory / f"seen {text}").touch()


def shown(parts: Sequence[LinePart]) -> list[str]:
    """Return the lines as a client shows them that joins parts and replaces lines."""
    lines: list[str] = []
    is_open = False
    for part in parts:
        assert len(part.text) <= PART_CHARS
        if part.replaces:
            assert lines
            assert not is_open
            lines[-1] = part.text
        elif is_open:
            lines[-1] += part.text
        else:
            lines.append(part.text)
        is_open = part.more
    assert not is_open
    return lines


def on_terminal(text: str) -> list[str]:
    """Return the lines with the last state of each; an empty state overwrites nothing."""
    *lines, last = text.split("\n")
    found = [next(filter(None, reversed(line.split("\r"))), "") for line in lines]
    last = next(filter(None, reversed(last.split("\r"))), "")
    return [*found, last] if last else found


@given(
    st.lists(st.tuples(st.sampled_from(PIECES), st.sampled_from([0.0, 0.05, SILENCE_S, 1.0])), max_size=30), st.data()
)
def test_lines_end_with_their_last_state_however_the_output_arrives(
    output: list[tuple[str, float]], data: st.DataObject
) -> None:
    lines, parts, now_s = LineSplitter(), list[LinePart](), 0.0
    for text, pause_s in output:
        encoded = text.encode()
        cut = data.draw(st.integers(0, len(encoded)))
        for piece in (encoded[:cut], encoded[cut:]):
            parts += lines.feed(piece, now_s)
            end_s = now_s + pause_s
            while (due_s := lines.due_s) is not None and due_s <= end_s:
                now_s = max(now_s, due_s)
                due = lines.due(now_s)
                assert due or lines.due_s != due_s
                parts += due
            now_s = end_s
    parts += lines.feed(b"", now_s, final=True)
    assert lines.due_s is None
    assert shown(parts) == on_terminal("".join(text for text, _ in output))


@given(
    st.lists(st.sampled_from(["\r", "\n", "a", "\x1b[1G", "\x1b[K", "\x1b[2K", "\x1b[31m"]), max_size=12),
    st.integers(1, 9),
)
def test_parts_are_what_was_printed_up_to_the_first_line_that_is_called_overwritten(
    pieces: list[str], size: int
) -> None:
    printed = "".join(pieces).encode()
    lines, parts = LineSplitter(), list[LinePart]()
    for at in range(0, len(printed), size):
        parts += lines.feed(printed[at : at + size], at)
    parts += lines.feed(b"", len(printed), final=True)
    begin = takewhile(lambda part: part.end != "\r", parts)
    copied = "".join(part.text + ("" if part.more else part.end) for part in begin)
    assert printed.startswith(copied.encode())


def test_states_are_passed_on_five_times_a_second_and_the_last_one_always() -> None:
    lines, times, parts = LineSplitter(), list[float](), list[LinePart]()
    for number in range(1001):
        now_s = number / 100
        if new := lines.feed(f"\r{number}".encode(), now_s):
            times.append(now_s)
            parts += new
    assert 45 <= len(times) <= 51
    assert all(later - earlier >= STATE_S - 1e-6 for earlier, later in pairwise(times))
    parts += lines.feed(b"\n", 10.0)
    assert parts[-1] == LinePart("1000", replaces=True, end="\r")
    assert shown(parts) == ["1000"]


@pytest.mark.parametrize("begin", ["", "first line\n", "50%\r"])
def test_a_line_that_grows_without_a_pause_is_passed_on_meanwhile(begin: str) -> None:
    lines, times, parts = LineSplitter(), list[float](), list[LinePart]()
    parts += lines.feed(begin.encode(), 0)
    for number in range(1, 61):
        now_s = number / 10
        if new := [*lines.due(now_s), *lines.feed(b".", now_s)]:
            times.append(now_s)
            parts += new
    assert times[0] <= 0.1 + AGE_S
    assert all(AGE_S - 1e-6 <= later - earlier <= AGE_S + 0.1 + 1e-6 for earlier, later in pairwise(times[1:]))
    parts += lines.feed(b"\n", 6.1)
    assert shown(parts)[-1] == "." * 60


def test_the_states_of_a_long_wait_leave_space_in_the_log() -> None:
    lines, parts, times = LineSplitter(), list[LinePart](), list[float]()
    for number in range(36_000):
        if new := lines.feed(f"\r{number:80}".encode(), number / 10):
            parts += new
            times.append(number / 10)
    assert sum(len(part.text) + 1 for part in parts) < LOGGED_BYTES * 0.8
    assert max(later - earlier for earlier, later in pairwise(times)) < 2.2
    assert lines.feed(b"\r99%\n", 3600.0)[-1] == LinePart("99%", replaces=True, end="\r")


@pytest.mark.parametrize("sequence", ["\x1b[38;5;196m", "\x1b[0m", "\x1b]8;;https://example.org\x07", "\x1b"])
@pytest.mark.parametrize("end", ["", "\n"])
def test_an_escape_sequence_is_in_one_part(sequence: str, end: str) -> None:
    for chars in range(PART_CHARS - len(sequence) - 1, PART_CHARS + 2):
        lines = LineSplitter()
        text = "x" * chars + sequence + "y" * PART_CHARS + sequence
        parts = lines.feed((text + end).encode(), 0) + lines.feed(b"", 0, final=True)
        assert shown(parts) == [text]
        assert sum(part.text.count(sequence) for part in parts) == 2


def test_a_state_that_is_printed_again_is_passed_on_once() -> None:
    lines = LineSplitter()
    parts = [part for number in range(50) for part in lines.feed(b"50%\r", number)]
    assert parts + lines.feed(b"\n", 50) == [LinePart("50%", end="\r")]


@pytest.mark.parametrize(
    "begin",
    [
        "\x1b[2K\r",
        "\x1b[K\r",
        "\x1b[2K\x1b[1G",
        "\x1b[0K\x1b[G",
        "\x1b[1G\x1b[0K",
        "\x1b[1000D",
        "\x1b[1K\x1b[2K\x1b[0G",
    ],
)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_any_move_to_the_first_column_overwrites_the_line(begin: str, size: int) -> None:
    printed = "".join(f"{begin}{number}%" for number in range(0, 101, 5)).encode()
    lines, parts = LineSplitter(), list[LinePart]()
    for at in range(0, len(printed), size):
        parts += lines.feed(printed[at : at + size], at * STATE_S / 100)
    parts += lines.feed(b"\ndone\n", 100)
    assert [part.text.removeprefix("\x1b[0K") for part in parts[-2:]] == ["100%", "done"]
    assert parts[-2].end == "\r"
    assert len(shown(parts)) == 2
    # On a terminal, a state must not erase itself.
    assert not any(part.text.endswith("K") for part in parts if "%" in part.text)


@pytest.mark.parametrize("end", ["\x1b[K", "\x1b[m\x1b[K", "\x1b[2K"])
def test_a_line_end_after_a_sequence_that_erases_overwrites_nothing(end: str) -> None:
    """As `grep --color=always` prints a file whose lines end with carriage returns."""
    assert LineSplitter().feed(f"found{end}\r\n".encode(), 0) == [LinePart(f"found{end}", end="\r\n")]


async def test_a_fast_progress_bar_is_passed_on_five_times_a_second(bench: Bench) -> None:
    source = "import sys, time\nfor i in range(101): print(f'\\r{i}%|', end='', file=sys.stderr); time.sleep(0.01)"
    ran = await bench.run(source, "python")
    assert 2 <= len(ran.parts) <= 5 * ran.execution.duration_ms / 1000 + 2
    assert ran.lines[-1] == ("stderr", "100%|")
    assert shown(ran.parts) == ["100%|"]
    assert ran.execution.stderr.read_bytes() == b"".join(b"\r%d%%|" % number for number in range(101))


async def test_lines_with_carriage_returns_before_their_ends_overwrite_nothing(bench: Bench) -> None:
    source = "for i in $(seq 200); do printf \"$i\\r\"; printf '\\n'; done; printf 'x\\r'; " + UNTIL_SEEN.format("x")
    ran = await bench.run(f"{source}; printf '\\n'", on_line=mark_seen(bench))
    *lines, last = ran.parts
    assert lines == [LinePart(str(number), end="\r\n") for number in range(1, 201)]
    # After a while the carriage return counts as one that overwrites.
    assert last == LinePart("x", end="\r")


async def test_a_character_that_is_printed_in_pieces_stays_whole_in_a_begin_of_a_line(bench: Bench) -> None:
    pieces = ("printf 'a\\303'", UNTIL_SEEN.format("a"), "printf '\\274b\\360\\237'", UNTIL_SEEN.format("üb"))
    ran = await bench.run("; ".join([*pieces, "printf '\\230\\200\\n'"]), on_line=mark_seen(bench))
    assert shown(ran.parts) == ["aüb😀"]
    assert [part.text for part in ran.parts] == ["a", "üb", "😀"]


async def test_both_streams_have_begins_of_lines(bench: Bench) -> None:
    ran = await bench.run("printf out; printf err >&2; sleep 0.6; echo 1; echo 2 >&2")
    for stream, text in (("stdout", "out1"), ("stderr", "err2")):
        own = [part for part, (of, _) in zip(ran.parts, ran.lines, strict=True) if of == stream]
        assert shown(own) == [text]


@pytest.mark.parametrize(
    "source", ["yes", "yes | tr '\\n' '\\r'", "yes | tr -d '\\n'", "cat /dev/urandom", "yes >&2 & yes"]
)
async def test_a_program_that_prints_for_ever_leaves_the_processor_to_others(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.setattr(output, "BURST_BYTES", 2 * MB)
    ran = await bench.run(source, timeout_s=3, limits=ExecLimits(output_bytes=MB))
    assert ran.execution.timed_out
    read = ran.execution.stdout_bytes + ran.execution.stderr_bytes
    assert read <= 3 * MB + output.FLOOD_BYTES_S * ran.execution.duration_ms / 1000
    assert ran.execution.stdout.stat().st_size == min(MB, ran.execution.stdout_bytes)


async def test_a_program_that_prints_less_than_a_burst_does_not_wait(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "FLOOD_BYTES_S", 1)
    assert (await bench.run("head -c 10M /dev/zero", timeout_s=30)).execution.stdout_bytes == 10 * MB


async def test_the_last_output_of_a_cancelled_program_is_passed_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "SILENCE_S", 60)
    monkeypatch.setattr(output, "AGE_S", 60)
    monkeypatch.setattr(executor, "LAST_OUTPUT_S", 60)
    lines: list[tuple[str, str]] = []
    source = "printf 'last words'; printf '1%%\\r99%%' >&2; touch said; sleep 100"
    running = asyncio.ensure_future(bench.run(source, on_line=lambda stream, text: lines.append((stream, text))))

    async def said() -> bool:
        return (bench.files.directory / "said").exists()

    await until(said, "the program has spoken")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert sorted(lines[-2:]) == [("stderr", "99%"), ("stdout", "last words")]


async def test_a_cancellation_does_not_wait_for_a_log_that_takes_nothing(bench: Bench) -> None:
    waiting = asyncio.Event()

    async def never(_stream: str, _part: LinePart) -> bool:
        waiting.set()
        await asyncio.Event().wait()
        return True

    command = Command(RUN_ID, "step-0", "sh", "echo line; sleep 100", timeout_s=100)
    running = asyncio.ensure_future(bench.executor.execute(command, bench.files, never))
    await waiting.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
