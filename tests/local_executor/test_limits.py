"""Limits of a program, and its end when it exceeds them."""

import pytest

from infra.contract.execution import ExecLimits
from infra.local_executor import guard, sandbox
from infra.workspace.limits import WorkspaceLimits
from tests.local_executor.rig import MB, Bench

SMALL = ExecLimits(memory_bytes=128 * MB, file_bytes=4 * MB, processes=24)


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
    assert (guard.memory_left(10) < 0) is exceeded
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


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("for n in 1 2 3; do head -c 3M /dev/zero > $n; done", "stored more than its limit of 8 MB"),
        ("mkdir d; seq -f d/%g 200 | xargs touch", "created more than its limit of 100 files"),
    ],
)
async def test_a_program_that_fills_the_disk_is_killed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, command: str, reason: str
) -> None:
    monkeypatch.setattr(sandbox, "DISK_BYTES", 8 * MB)
    monkeypatch.setattr(sandbox, "DISK_ENTRIES", 100)
    ran = await bench.run(f"{command}; sleep 600", timeout_s=100)
    assert ran.code == 137
    assert not ran.execution.timed_out
    assert ran.lines[-1] == ("stderr", f"killed: the program {reason} in /workspace")


def test_a_program_may_store_more_on_the_disk_than_is_kept() -> None:
    kept = WorkspaceLimits()
    assert sandbox.DISK_FACTOR * kept.total_bytes == sandbox.DISK_BYTES
    assert sandbox.DISK_FACTOR * kept.entries == sandbox.DISK_ENTRIES


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
