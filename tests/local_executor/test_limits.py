"""Limits of a program, and its end when it exceeds them."""

import pytest

from infra.contract.execution import ExecLimits
from infra.local_executor import guard, sandbox
from tests.local_executor.rig import MB, Bench

SMALL = ExecLimits(memory_bytes=128 * MB, file_bytes=4 * MB, processes=24)


async def test_one_process_cannot_allocate_more_than_the_limit(bench: Bench) -> None:
    ran = await bench.run("x = bytearray(300 * 1024 * 1024)", "python", limits=SMALL)
    assert ran.code == 1
    assert "MemoryError" in ran.err


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


@pytest.mark.parametrize("source", [MANY, SHARED], ids=["many processes", "shared memory"])
async def test_a_program_whose_processes_together_exceed_the_limit_is_killed(bench: Bench, source: str) -> None:
    ran = await bench.run(source, "python", limits=SMALL, timeout_s=100)
    assert ran.code == 137
    assert not ran.execution.timed_out
    assert ran.lines[-1] == ("stderr", "killed: the program used more memory than its limit of 128 MB")


async def test_shared_memory_counts_once(bench: Bench) -> None:
    source = (
        "import os, time\n"
        "held = b'x' * (80 * 1024 * 1024)\n"
        "for _ in range(6):\n"
        "    if os.fork() == 0:\n"
        "        time.sleep(1)\n"
        "        os._exit(0)\n"
        "for _ in range(6): os.wait()\n"
        "print('done')"
    )
    ran = await bench.run(source, "python", limits=SMALL)
    assert (ran.code, ran.out) == (0, "done\n"), ran.err


async def test_processes_that_end_during_a_count_do_not_exceed_the_limit(bench: Bench) -> None:
    source = (
        "import os, random, time\n"
        "held = b'x' * (80 * 1024 * 1024)\n"
        "until = time.monotonic() + 3\n"
        "while time.monotonic() < until:\n"
        "    for _ in range(10):\n"
        "        if os.fork() == 0:\n"
        "            time.sleep(random.random() / 10)\n"
        "            os._exit(0)\n"
        "    for _ in range(10): os.wait()\n"
        "print('done')"
    )
    ran = await bench.run(source, "python", limits=SMALL)
    assert (ran.code, ran.out) == (0, "done\n"), ran.err


@pytest.mark.parametrize(
    ("counts", "exceeded"),
    [
        ([(0, 11)] * guard.COUNTS, True),
        ([(0, 11)] * (guard.COUNTS - 1) + [(0, 10)], False),
        ([(0, 11), (11, 11)], True),
        ([(10, 10)], False),
    ],
)
def test_shared_memory_must_exceed_the_limit_in_several_counts_and_private_memory_in_one(
    monkeypatch: pytest.MonkeyPatch, counts: list[tuple[int, int]], exceeded: bool
) -> None:
    remaining = iter(counts)
    monkeypatch.setattr(guard, "tree_memory", lambda _: next(remaining))
    assert guard.exceeds_memory(10) is exceeded
    assert [*remaining] == []


@pytest.mark.parametrize(
    "call",
    [
        "os.memfd_create('x')",
        "libc.shmget(0, 1 << 20, 0o1600)",
        "libc.msgget(0, 0o1600)",
        "libc.semget(0, 100, 0o1600)",
        "libc.mq_open(b'/x', os.O_CREAT | os.O_RDWR, 0o600, None)",
    ],
)
async def test_memory_that_belongs_to_no_process_is_refused(bench: Bench, call: str) -> None:
    source = (
        "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        f"try:\n    got = {call}\nexcept OSError:\n    got = -1\nprint(got)"
    )
    assert (await bench.run(source, "python")).out == "-1\n"


@pytest.mark.parametrize("folder", ["/tmp", "/dev/shm"])
async def test_temporary_files_have_a_limit(bench: Bench, folder: str) -> None:
    ran = await bench.run(f"for n in 1 2 3; do head -c 200M /dev/zero > {folder}/$n || exit 3; done")
    assert ran.code == 3
    assert "No space left" in ran.err


@pytest.mark.parametrize("folder", ["/tmp", "/dev/shm"])
async def test_the_number_of_temporary_files_is_limited(
    bench: Bench, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "TMP_FILES", 2000)
    source = "import os, time\nfor n in range({}): os.mknod(f'{}/{{n}}')\ntime.sleep(0.5)\nprint('fine')"
    ran = await bench.run(source.format(1900, folder), "python")
    assert (ran.code, ran.out) == (0, "fine\n"), ran.err
    ran = await bench.run(source.format(2100, folder), "python", timeout_s=100)
    assert ran.code == 137
    assert ran.lines[-1][1] == "killed: the program created more than its limit of 2000 files in one of /tmp, /dev/shm"


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


async def test_the_number_of_threads_is_limited(bench: Bench) -> None:
    source = (
        "import threading, time\n"
        "try:\n"
        "    for made in range(1000): threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
        "except RuntimeError: print(made)"
    )
    ran = await bench.run(source, "python", limits=SMALL)
    assert 10 < int(ran.out) < 24


async def test_processor_time_is_limited(bench: Bench) -> None:
    """The limit is the timeout plus one second, against a program with several busy threads."""
    source = "import threading\ndef spin():\n    while True: pass\nimport resource\nprint(resource.getrlimit(0))"
    assert (await bench.run(source, "python", timeout_s=30)).out == "(31, 31)\n"
    spinning = await bench.run("while :; do :; done & while :; do :; done", timeout_s=0.5)
    assert spinning.execution.timed_out


async def test_open_files_are_limited(bench: Bench) -> None:
    ran = await bench.run("ulimit -n; ulimit -Hn; ulimit -c; ulimit -Hc")
    assert ran.out == "1024\n1024\n0\n0\n"


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


async def test_the_limits_of_one_run_do_not_affect_another(bench: Bench) -> None:
    """Root assigns each run its own uid, so that the kernel counts processes of each run separately."""
    import asyncio

    hog = asyncio.ensure_future(
        bench.run("i=0; while [ $i -lt 20 ]; do sleep 5 & i=$((i+1)); done; wait", limits=SMALL, run_id="hog")
    )
    other = await bench.run("i=0; while [ $i -lt 15 ]; do sleep 0.1 & i=$((i+1)); done; wait; echo fine", limits=SMALL)
    assert other.out == "fine\n"
    hog.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hog
