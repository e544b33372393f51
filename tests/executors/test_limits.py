"""Limits of a program, and its end when it exceeds them."""

import resource

import pytest

from infra.contract.execution import ExecLimits
from tests.local_executor.rig import MB, Bench

SMALL = ExecLimits(memory_bytes=128 * MB, file_bytes=4 * MB, processes=24)
MANY = """
import os, time
for _ in range(8):
    if os.fork() == 0:
        held = b'x' * (60 * 1024 * 1024)
        time.sleep(600)
time.sleep(600)
"""
SHARED = """
import mmap, time
held = [mmap.mmap(-1, 16 * 1024 * 1024) for _ in range(40)]
for part in held:
    part.write(b'x' * (16 * 1024 * 1024))
time.sleep(600)
"""


async def test_one_process_cannot_allocate_more_than_the_limit(bench: Bench) -> None:
    ran = await bench.run("x = bytearray(400 * 1024 * 1024)", "python", limits=SMALL)
    assert ran.code == 1
    assert "MemoryError" in ran.err


@pytest.mark.parametrize("source", [MANY, SHARED], ids=["many processes", "shared memory"])
async def test_a_program_whose_processes_together_exceed_the_limit_is_killed(bench: Bench, source: str) -> None:
    ran = await bench.run(source, "python", limits=SMALL, timeout_s=100)
    assert ran.code == 137
    assert not ran.execution.timed_out
    assert ran.lines[-1] == ("stderr", "killed: the program used more memory than its limit of 128 MB")


async def test_a_file_cannot_exceed_its_limit(bench: Bench) -> None:
    ran = await bench.run("trap '' XFSZ; head -c 100M /dev/zero > big; echo $?; stat -c %s big", limits=SMALL)
    assert ran.out == f"1\n{4 * MB}\n"
    sparse = await bench.run("truncate -s 1T sparse; echo $?; stat -c %s sparse", limits=SMALL)
    assert sparse.out.split()[0] != "0"
    assert sparse.out.split()[1] == "0"


async def test_a_fork_bomb_is_limited_and_killed(bench: Bench) -> None:
    ran = await bench.run("bomb() { bomb MARKER | bomb & }; bomb; sleep 1; echo survived", "bash", limits=SMALL)
    assert not ran.execution.timed_out
    source = (
        "import os, time\nmade = 0\n"
        "try:\n"
        "    while True:\n"
        "        if os.fork() == 0: time.sleep(600)\n"
        "        made += 1\n"
        "except OSError: print(made)"
    )
    ran = await bench.run(source, "python", limits=SMALL)
    assert ran.code == 0
    assert 10 < int(ran.out) < 24


@pytest.mark.parametrize("limits", [SMALL, ExecLimits()], ids=["small", "default"])
async def test_the_number_of_threads_alone_is_limited(bench: Bench, limits: ExecLimits) -> None:
    """Their stacks, of 8 MiB each, do not exceed the limit of memory before."""
    source = (
        "import threading, time\n"
        "try:\n"
        "    for made in range(1000): threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
        "except RuntimeError: print(made)"
    )
    ran = await bench.run(source, "python", limits=limits)
    assert limits.processes - 14 < int(ran.out) < limits.processes


async def test_processor_time_is_limited(bench: Bench) -> None:
    """The limit is the timeout plus one second, against a program with several busy threads."""
    source = "import threading\ndef spin():\n    while True: pass\nimport resource\nprint(resource.getrlimit(0))"
    assert (await bench.run(source, "python", timeout_s=30)).out == "(31, 31)\n"
    spinning = await bench.run("while :; do :; done & while :; do :; done", timeout_s=0.5)
    assert spinning.execution.timed_out


async def test_open_files_are_limited(bench: Bench) -> None:
    ran = await bench.run("ulimit -n; ulimit -Hn; ulimit -c; ulimit -Hc")
    assert ran.out == "1024\n1024\n0\n0\n"


async def test_stack_and_priority_do_not_depend_on_the_worker(bench: Bench) -> None:
    shown = "ulimit -s; nice"
    before = resource.getrlimit(resource.RLIMIT_STACK)
    resource.setrlimit(resource.RLIMIT_STACK, (1024 * 1024, before[1]))
    try:
        assert (await bench.run(shown)).out == "8192\n5\n"
    finally:
        resource.setrlimit(resource.RLIMIT_STACK, before)


async def test_limits_cannot_be_raised(bench: Bench) -> None:
    source = (
        "import resource as r\n"
        "for name in (r.RLIMIT_NPROC, r.RLIMIT_DATA, r.RLIMIT_FSIZE, r.RLIMIT_CPU, r.RLIMIT_NOFILE):\n"
        "    soft, hard = r.getrlimit(name)\n"
        "    assert soft == hard > 0, name\n"
        "    try: r.setrlimit(name, (soft, hard * 2))\n"
        "    except (ValueError, PermissionError): continue\n"
        "    raise SystemExit('raised')"
    )
    assert (await bench.run(source, "python")).code == 0
