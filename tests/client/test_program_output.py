"""Output of a program, put together from a log: every byte, on pipes and on terminals."""

import io
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.local_executor.output import LineSplitter
from swissbrain.cli.program_output import TRUNCATED, StreamCopy
from worker.run.call_context import LINE_ENDS


def copied(output: bytes, cuts: Sequence[int] = (), *, is_terminal: bool = False) -> bytes:
    """Return what is copied of an output that the worker received in pieces, cut at these places."""
    lines, to = LineSplitter(), io.BytesIO()
    copy = StreamCopy(to, is_terminal)
    logged, is_overwritten = b"", False
    places = [0, *sorted(min(cut, len(output)) for cut in cuts), len(output)]
    pieces = [output[start:end] for start, end in pairwise(places)]
    for number, piece in enumerate((*pieces, b"")):
        is_last = number == len(pieces)
        for part in lines.feed(piece, number * 0.01, final=is_last):
            logged += part.text.encode() + (b"" if part.more else part.end.encode())
            is_overwritten = is_overwritten or part.end == "\r"
            end = {"line_end": LINE_ENDS[part.end]} if part.end in LINE_ENDS else {}
            copy.line({"text": part.text, "more": part.more, "replaces_line": part.replaces, **end})
    exact = logged == output and not is_overwritten
    copy.finish(None if exact else lambda file: _write(file, output))
    assert not copy.differs
    return to.getvalue()


def _write(file: object, data: bytes) -> None:
    assert hasattr(file, "write")
    file.write(data)


AWKWARD = [
    b"",
    b"\n",
    b"\n\n\n",
    b"a",
    b"a\nb",
    b"a\nb\n",
    b"a\r\nb\r\n",
    b"a\r\nb",
    b"a\r\r\nb\n",
    b"\r",
    b"\r\n",
    b"10%\r50%\r100%\ndone\n",
    b"x\r\n" * 3000,
    b"\xff\xfe\x00binary\n\x80",
    b"good\n\xff\nbad\n",
    "\ufffd is a character\n".encode(),
    "é中😀\u2028\u0085\n".encode(),
    b"\x1b[31mred\x1b[0m\n",
    b"\x00\x01\x02",
    b"x" * 10_000,
    b"x" * 4096 + b"\n" + b"y" * 8192,
    bytes(range(256)) * 20,
]


@pytest.mark.parametrize("output", AWKWARD, ids=lambda output: repr(output[:20]))
@pytest.mark.parametrize("step", [0, 1, 2, 3, 7, 4096])
def test_a_pipe_gets_every_byte(output: bytes, step: int) -> None:
    assert copied(output, range(step, len(output), step) if step else ()) == output


@given(
    st.lists(st.sampled_from([b"a", b"\r", b"\n", b"\r\n", b"\xff", "é".encode(), b"bc" * 2100]), max_size=30).map(
        b"".join
    ),
    st.lists(st.integers(0, 200), max_size=5),
)
def test_a_pipe_gets_every_byte_however_the_output_is_cut(output: bytes, cuts: list[int]) -> None:
    assert copied(output, cuts) == output


@pytest.mark.parametrize("output", [b"a\nb\n", b"a\r\nb", b"no end", b"\x1b[1mbold\x1b[0m\n"])
def test_a_terminal_gets_plain_output_as_it_is(output: bytes) -> None:
    assert copied(output, is_terminal=True) == output


def test_a_terminal_sees_an_overwritten_line_overwritten() -> None:
    to = io.BytesIO()
    copy = StreamCopy(to, is_terminal=True)
    for state in ("10%", "50%", "100%"):
        copy.line({"text": state, "replaces_line": state != "10%", "line_end": "overwritten"})
    copy.finish(None)
    assert to.getvalue() == b"10%\r\x1b[K50%\r\x1b[K100%\n"


@pytest.mark.parametrize("is_terminal", [True, False])
def test_output_beyond_the_limit_of_the_log_comes_from_the_stored_file(is_terminal: bool) -> None:
    to = io.BytesIO()
    copy = StreamCopy(to, is_terminal)
    complete = b"".join(b"%d\n" % number for number in range(100_000))
    for number in range(1000):
        copy.line({"text": str(number)})
    copy.line({"text": f"{TRUNCATED}step-0.stdout"})
    copy.finish(lambda file: _write(file, complete))
    assert to.getvalue() == complete


def test_a_program_may_print_what_the_log_says_about_a_truncated_output() -> None:
    text = f"{TRUNCATED}step-0.stdout\nmore\n".encode()
    assert copied(text) == text


def test_output_of_a_repeated_execution_is_not_copied_twice() -> None:
    to = io.BytesIO()
    copy = StreamCopy(to, is_terminal=False)
    copy.line({"text": "first"})
    copy.line({"text": "seco", "more": True})
    copy.restart()
    for text in ("first", "second", "third"):
        copy.line({"text": text})
    copy.finish(None)
    assert to.getvalue() == b"first\nsecond\nthird\n"
    assert not copy.differs


def test_another_output_of_a_repeated_execution_is_noticed() -> None:
    copy = StreamCopy(io.BytesIO(), is_terminal=False)
    copy.line({"text": "first"})
    copy.line({"text": "second"})
    copy.restart()
    copy.line({"text": "other"})
    copy.line({"text": "second"})
    copy.finish(None)
    assert copy.differs
