"""Output of programs: passed on live, stored up to its limit, in any encoding."""

import asyncio

import pytest

from infra.contract.execution import ExecLimits, LinePart
from tests.local_executor.rig import MB, Bench
from tests.support.waiting import until


async def test_lines_are_passed_on_while_the_program_runs(bench: Bench) -> None:
    lines: list[str] = []
    source = "echo first; while [ ! -e go ]; do sleep 0.02; done; echo second"
    running = asyncio.ensure_future(bench.run(source, on_line=lambda _, text: lines.append(text)))

    async def first() -> bool:
        return lines == ["first"]

    await until(first, "the first line is there")
    assert not running.done()
    (bench.files.directory / "go").touch()
    assert (await running).lines == [("stdout", "first"), ("stdout", "second")]


async def test_stdout_and_stderr_keep_their_order_each(bench: Bench) -> None:
    ran = await bench.run("for i in $(seq 200); do echo o$i; echo e$i >&2; done")
    assert [text for stream, text in ran.lines if stream == "stdout"] == [f"o{n}" for n in range(1, 201)]
    assert [text for stream, text in ran.lines if stream == "stderr"] == [f"e{n}" for n in range(1, 201)]


async def test_the_last_line_needs_no_end(bench: Bench) -> None:
    ran = await bench.run("printf 'one\\ntwo'; printf 'bad' >&2")
    assert sorted(ran.lines) == [("stderr", "bad"), ("stdout", "one"), ("stdout", "two")]


async def test_a_program_may_print_nothing(bench: Bench) -> None:
    ran = await bench.run("true")
    assert (ran.lines, ran.out, ran.err, ran.execution.stdout_bytes) == ([], "", "", 0)


async def test_empty_lines_and_line_ends_of_two_characters_are_passed_on(bench: Bench) -> None:
    ran = await bench.run("printf 'a\\r\\n\\n\\nb\\r\\n'")
    assert ran.parts == [LinePart("a", end="\r\n"), LinePart(""), LinePart(""), LinePart("b", end="\r\n")]
    assert ran.execution.stdout.read_bytes() == b"a\r\n\n\nb\r\n"


async def test_a_long_line_is_passed_on_in_parts(bench: Bench) -> None:
    ran = await bench.run("head -c 3000000 /dev/zero | tr '\\0' x")
    assert {len(text) for _, text in ran.lines[:-1]} == {4096}
    assert "".join(text for _, text in ran.lines) == "x" * 3_000_000
    assert ran.continues == [True] * (len(ran.lines) - 1) + [False]
    assert ran.execution.stdout_bytes == 3_000_000


async def test_invalid_utf_8_is_replaced_in_lines_and_kept_in_the_file(bench: Bench) -> None:
    ran = await bench.run("printf 'a\\377\\376b\\0c\\n\\303'")
    assert [text for _, text in ran.lines] == ["a��b\0c", "�"]
    assert ran.execution.stdout.read_bytes() == b"a\xff\xfeb\0c\n\xc3"


async def test_a_character_may_be_printed_in_pieces(bench: Bench) -> None:
    ran = await bench.run(
        "printf '\\303'; sleep 0.2; printf '\\274\\n'; printf '\\360\\237'; sleep 0.2; printf '\\230\\200'"
    )
    assert [text for _, text in ran.lines] == ["ü", "😀"]


async def test_output_beyond_the_limit_is_counted_and_discarded(bench: Bench) -> None:
    limits = ExecLimits(output_bytes=MB)
    ran = await bench.run(f"yes {'a line of some length' * 100} | head -c 5M", limits=limits)
    assert ran.code == 0
    assert ran.execution.stdout_bytes == 5 * MB
    assert ran.execution.stdout.stat().st_size == MB
    assert ran.execution.stdout.read_bytes().startswith(b"a line of")


async def test_a_program_may_close_its_output_early(bench: Bench) -> None:
    ran = await bench.run("exec >&- 2>&-; sleep 0.2; exit 5")
    assert ran.code == 5


async def test_a_child_that_keeps_the_output_open_does_not_delay_the_end(bench: Bench) -> None:
    ran = await bench.run("(sleep 1000; : MARKER) & echo done", timeout_s=100)
    assert (ran.code, ran.out, ran.execution.timed_out) == (0, "done\n", False)
    assert not bench.alive()


async def test_standard_input_is_empty(bench: Bench) -> None:
    ran = await bench.run("cat; read line || echo nothing to read")
    assert ran.out == "nothing to read\n"


async def test_an_error_of_the_log_ends_the_program(bench: Bench) -> None:
    def refuse(_: str, __: str) -> None:
        raise RuntimeError("the log is gone")

    with pytest.raises(RuntimeError, match="the log is gone"):
        await bench.run("echo x; sleep 1000; : MARKER", on_line=refuse, timeout_s=100)
    assert not bench.alive()
