"""Output of programs: passed on live, stored up to its limit, in any encoding."""

import asyncio
import hashlib

import pytest

from infra.contract.execution import Command, LinePart
from tests.local_executor.rig import RUN_ID, Bench
from tests.support.waiting import until


async def test_python_prints_live_without_flush(bench: Bench) -> None:
    source = "import os, time\nprint('first')\nwhile not os.path.exists('go'): time.sleep(0.02)"

    def go(_: str, __: str) -> None:
        (bench.files.directory / "go").touch()

    assert (await bench.run(source, "python", on_line=go, timeout_s=60)).code == 0


@pytest.mark.parametrize("extra", [-1, 0, 1])
async def test_a_line_of_the_length_of_a_part_is_one_part(bench: Bench, extra: int) -> None:
    ran = await bench.run(f"print('x' * {4096 + extra})\nprint('y')", "python")
    assert [text for _, text in ran.lines] == (["x" * 4096, "x", "y"] if extra == 1 else ["x" * (4096 + extra), "y"])
    assert ran.continues == ([True, False, False] if extra == 1 else [False, False])


async def test_the_end_of_a_line_may_come_after_its_last_part(bench: Bench) -> None:
    ran = await bench.run("head -c 4096 /dev/zero | tr '\\0' x; printf '\\r'; sleep 0.2; printf '\\ny'")
    assert [text for _, text in ran.lines] in (["x" * 4096, "", "y"], ["x" * 4096, "y"])
    assert ran.continues == [len(ran.lines) == 3, *([False] * (len(ran.lines) - 1))]


async def test_random_bytes_are_stored_unchanged(bench: Bench) -> None:
    ran = await bench.run("head -c 2000000 /dev/urandom > made; cat made")
    made = (bench.files.directory / "made").read_bytes()
    assert hashlib.sha256(made).digest() == hashlib.sha256(ran.execution.stdout.read_bytes()).digest()
    assert all(len(text) <= 4096 for _, text in ran.lines)


async def test_a_slow_log_slows_the_program(bench: Bench) -> None:
    """No line is lost, and the output between program and log stays small."""
    ran = await bench.run("seq 1 20000 | tee all; echo ok", "bash")
    assert [text for _, text in ran.lines[-2:]] == ["20000", "ok"]
    gate = asyncio.Event()
    waiting: list[str] = []

    async def line(_: str, part: LinePart) -> bool:
        waiting.append(part.text)
        return await gate.wait()

    source = (
        "i=0; while [ $i -lt 400 ]; do head -c 10000 /dev/zero | tr '\\0' x; echo; i=$((i+1)); echo $i > count; done"
    )
    command = Command(RUN_ID, "step-1", "sh", source, 100)
    running = asyncio.ensure_future(bench.executor.execute(command, bench.files, line))

    async def stuck() -> bool:
        path = bench.files.directory / "count"
        before = path.read_text() if path.exists() else ""
        await asyncio.sleep(0.5)
        return bool(before) and before == path.read_text()

    await until(stuck, "the program waits for the log")
    assert int((bench.files.directory / "count").read_text()) < 200
    assert len(waiting) == 1
    gate.set()
    assert (await running).stdout_bytes == 400 * 10_001


async def test_each_call_has_its_own_output(bench: Bench) -> None:
    first = await bench.run("echo one", call="step-1")
    second = await bench.run("echo two", call="step-2")
    assert (first.out, second.out) == ("one\n", "two\n")
    await bench.executor.release(RUN_ID)
    assert not first.execution.stdout.exists()
    assert bench.left() == []
    await bench.executor.release(RUN_ID)
