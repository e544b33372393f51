"""Output that no line end follows: begins of lines, and lines that a program overwrites."""

import asyncio

import pytest

from infra.contract.execution import Command, LinePart
from tests.local_executor.rig import RUN_ID, Bench
from tests.support.waiting import until


async def test_the_begin_of_a_line_is_passed_on_while_the_program_waits(bench: Bench) -> None:
    lines: list[str] = []
    source = "printf 'Name: '; while [ ! -e go ]; do sleep 0.02; done; echo Ada; printf end"
    running = asyncio.ensure_future(bench.run(source, on_line=lambda _, text: lines.append(text)))

    async def prompt() -> bool:
        return lines == ["Name: "]

    await until(prompt, "the prompt is there")
    (bench.files.directory / "go").touch()
    ran = await running
    assert ran.parts == [LinePart("Name: ", more=True), LinePart("Ada"), LinePart("end", end="")]
    assert ran.out == "Name: Ada\nend"


async def test_a_begin_of_a_line_without_an_end_is_closed_at_the_end_of_the_program(bench: Bench) -> None:
    ran = await bench.run("printf waiting; sleep 1")
    assert ran.parts == [LinePart("waiting", more=True), LinePart("", end="")]


@pytest.mark.parametrize("bar", ["\\r%d%%", "%d%%\\r", "\\r%d%%\\r"])
async def test_a_progress_bar_is_seen_while_the_program_runs(bench: Bench, bar: str) -> None:
    seen: list[str] = []
    source = (
        f"for i in 0 50 100; do printf '{bar}' $i; while [ ! -e go-$i ]; do sleep 0.02; done; done; echo; echo done"
    )
    running = asyncio.ensure_future(bench.run(source, on_line=lambda _, text: seen.append(text)))
    for number in (0, 50, 100):

        async def is_seen(state: str = f"{number}%") -> bool:
            return seen[-1:] == [state]

        await until(is_seen, f"{number} % is seen")
        (bench.files.directory / f"go-{number}").touch()
    ran = await running
    states = [LinePart(text, replaces=text != "0%", end="\r") for text in ("0%", "50%", "100%")]
    # The line end of a bar that ends with a carriage return ends the same line.
    assert ran.parts == [*states, LinePart("done")]


async def test_output_is_no_longer_decoded_when_no_more_lines_are_wanted(bench: Bench) -> None:
    parts: list[LinePart] = []

    async def two(_: str, part: LinePart) -> bool:
        parts.append(part)
        return len(parts) < 2

    command = Command(RUN_ID, "step-0", "sh", "seq 5000; printf prompt; sleep 0.5", 60)
    ended = await bench.executor.execute(command, bench.files, two)
    assert parts == [LinePart("1"), LinePart("2")]
    assert ended.stdout.read_bytes() == b"".join(b"%d\n" % number for number in range(1, 5001)) + b"prompt"
