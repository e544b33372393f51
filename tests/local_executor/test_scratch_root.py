"""Whose scratch folder may be removed: that of a worker which is gone, and nobody else's."""

import fcntl
import logging
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from infra import folders
from infra.contract.errors import ExecutorUnavailable
from infra.local_executor import LocalExecutor, scratch_root
from infra.local_executor.scratch_root import LOCK, ScratchRoot
from tests.local_executor.rig import children_of, left_in, processes_with
from tests.support.waiting import wait_until

REPOSITORY = Path(__file__).parents[2]
SANDBOX_UID = 300_000


@contextmanager
def other(root: Path, marker: str = "marker") -> Iterator["subprocess.Popen[bytes]"]:
    """A worker in another process, with a program under way."""
    argv = [sys.executable, "-m", "tests.local_executor.parent", str(root), marker, "sandbox", "1"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=REPOSITORY)
    try:
        assert process.stdout
        assert [process.stdout.readline() for _ in range(2)] == [b"begin\n", b"up\n"]
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def starts(folder: Path) -> Iterator[Path]:
    """A worker in this process."""
    executor = LocalExecutor(folder)
    yield folder
    executor.close()


@pytest.fixture
def marker() -> Iterator[str]:
    made = f"marker-{random.getrandbits(64):x}"
    yield made
    wait_until(lambda: not processes_with(made), "no process of the test is left")


def is_free(folder: Path) -> bool:
    """Whether nobody holds the lock."""
    with (folder / LOCK).open("rb") as lock, suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def litter(folder: Path) -> None:
    """What a program may leave: of its own uid, and locked."""
    deep = folder / "run-1" / "workspace" / "a" / "b"
    deep.mkdir(parents=True, exist_ok=True)
    (deep / "file").write_bytes(b"x")
    (deep.parent / "link").symlink_to("/etc")
    if os.geteuid() == 0:
        for path in (deep / "file", deep, deep.parent):
            os.chown(path, SANDBOX_UID, SANDBOX_UID)
    for path in (deep / "file", deep, deep.parent):
        path.chmod(0)


def actions(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records]


def test_what_a_killed_worker_left_is_removed_by_the_next_one(
    tmp_path: Path, marker: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with other(tmp_path / "killed", marker) as process:
        process.kill()
        process.wait()
    litter(tmp_path / "killed")
    wait_until(lambda: is_free(tmp_path / "killed"), "its programs are dead")
    with starts(tmp_path / "next"):
        assert [path.name for path in tmp_path.iterdir()] == ["next"]
    assert actions(caplog) == ["scratch.removed"]


def test_what_a_living_worker_has_is_not(tmp_path: Path, marker: str) -> None:
    with other(tmp_path / "living", marker), starts(tmp_path / "next"):
        assert left_in(tmp_path / "living") == ["run-0"]
        assert processes_with(marker)


def test_nor_what_programs_still_use_whose_worker_is_dead(tmp_path: Path, marker: str) -> None:
    with other(tmp_path / "killed", marker) as process:
        (guard,) = children_of(process.pid)
        os.kill(guard, signal.SIGSTOP)
        process.kill()
        process.wait()
        assert processes_with(marker)
        try:
            with starts(tmp_path / "next"):
                assert left_in(tmp_path / "killed") == ["run-0"]
        finally:
            os.kill(guard, signal.SIGCONT)
    wait_until(lambda: is_free(tmp_path / "killed"), "its programs are dead")
    with starts(tmp_path / "next"):
        assert not (tmp_path / "killed").exists()


def test_a_program_does_not_hold_the_lock_of_its_worker(tmp_path: Path, marker: str) -> None:
    def held_by(pid: int) -> bool:
        fds = Path(f"/proc/{pid}/fd")
        return any(fd.readlink() == tmp_path / "own" / LOCK for fd in fds.iterdir() if fd.is_symlink())

    with other(tmp_path / "own", marker) as process:
        (guard,) = children_of(process.pid)
        assert held_by(process.pid)
        assert held_by(guard)
        programs = set(processes_with(marker)) - {process.pid, guard}
        assert programs
        assert not any(held_by(pid) for pid in programs)


def test_a_folder_without_a_lock_is_left_alone(tmp_path: Path) -> None:
    """It is about to be moved into, or its worker is of a release that knew no locks."""
    (tmp_path / "older" / "run-1").mkdir(parents=True)
    (tmp_path / "file").touch()
    (tmp_path / "elsewhere" / "file").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with starts(tmp_path / "next"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "file", "link", "older"]
    assert [path.name for path in (tmp_path / "older").iterdir()] == ["run-1"]


def test_a_link_to_a_folder_with_a_free_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / LOCK).touch()
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "precious")
    with starts(tmp_path / "root" / "next"):
        pass
    assert (tmp_path / "precious" / LOCK).exists()
    with pytest.raises(ExecutorUnavailable, match="it is a link"):
        LocalExecutor(tmp_path / "root" / "link")
    assert (tmp_path / "precious" / LOCK).exists()


def test_what_belongs_to_another_user_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    abandoned(tmp_path / "theirs")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    scratch_root.remove_abandoned(tmp_path, keep="own")
    assert (tmp_path / "theirs").exists()


def abandoned(folder: Path) -> None:
    """A folder whose worker is gone."""
    left = ScratchRoot(folder)
    litter(folder)
    os.close(left.lock_fd)


def test_what_cannot_be_removed_is_said_and_keeps_nobody_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a", "stuck", "z"):
        abandoned(tmp_path / name)
    empty_folder = folders.empty_folder

    def refuse(folder: Path, keep: str) -> None:
        if folder.name == "stuck":
            raise PermissionError(1, "Operation not permitted", "file")
        empty_folder(folder, keep)

    monkeypatch.setattr(scratch_root, "empty_folder", refuse)
    with starts(tmp_path / "next"):
        assert {path.name for path in tmp_path.iterdir()} == {"stuck", "next"}
    (said,) = [record for record in caplog.records if record.message == "scratch.remove_failed"]
    assert said.levelno == logging.WARNING
    assert said.fields["folder"] == str(tmp_path / "stuck")  # type: ignore[attr-defined]
    monkeypatch.undo()
    with starts(tmp_path / "next"):
        assert [path.name for path in tmp_path.iterdir()] == ["next"]


def test_a_worker_that_ends_in_order_leaves_nothing(tmp_path: Path) -> None:
    with starts(tmp_path / "own") as folder:
        litter(folder)
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_cannot_remove_its_folder_ends_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    executor = LocalExecutor(tmp_path / "own")

    def refuse(folder: Path, keep: str) -> None:
        raise PermissionError(1, "Operation not permitted", "file")

    monkeypatch.setattr(scratch_root, "empty_folder", refuse)
    executor.close()
    assert actions(caplog) == ["scratch.remove_failed"]


def test_a_worker_starts_over_in_what_one_of_its_name_left(tmp_path: Path, marker: str) -> None:
    """Though the programs of that one may not be dead yet."""
    with other(tmp_path / "own", marker) as process:
        process.kill()
    with starts(tmp_path / "own") as folder:
        assert not processes_with(marker)
        assert left_in(folder) == []


def test_two_workers_of_one_name_do_not_live_at_the_same_time(
    tmp_path: Path, marker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch_root, "LOCK_TIMEOUT_S", 0)
    with other(tmp_path / "own", marker):
        with pytest.raises(ExecutorUnavailable, match="is in use by another worker; give each worker"):
            LocalExecutor(tmp_path / "own")
        assert processes_with(marker)
        assert left_in(tmp_path / "own") == ["run-0"]


@pytest.mark.parametrize("step", ["open", "flock"])
def test_a_folder_that_is_removed_while_it_is_being_moved_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Between any two steps another worker starts, and finds what was made until then."""
    module = os if step == "open" else fcntl
    real = getattr(module, step)
    meddled: list[bool] = []

    def meddle(*args: object, **options: object) -> object:
        if not meddled:
            meddled.append(True)
            (tmp_path / "own" / LOCK).touch()  # what would be there one step later
            scratch_root.remove_abandoned(tmp_path, keep="next")
            assert not (tmp_path / "own").exists()
        return real(*args, **options)

    monkeypatch.setattr(module, step, meddle)
    made = ScratchRoot(tmp_path / "own")
    assert meddled
    assert os.path.samestat(os.fstat(made.lock_fd), (tmp_path / "own" / LOCK).stat())
    scratch_root.remove_abandoned(tmp_path, keep="next")
    assert (tmp_path / "own").exists()
    made.remove()


def test_many_start_and_end_at_once(tmp_path: Path) -> None:
    """Each has its folder for itself from its start to its end, be that in order or not."""
    wrong: list[str] = []

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(40):
            own = f"w{chance.randrange(4)}"
            scratch_root.remove_abandoned(tmp_path, keep=own)
            lived = ScratchRoot(tmp_path / own)
            mine = tmp_path / own / f"run-{seed}"
            mine.mkdir()
            scratch_root.remove_abandoned(tmp_path, keep="nobody")
            if left_in(tmp_path / own) != [mine.name]:
                wrong.append(f"{left_in(tmp_path / own)} beside {mine.name}")
            if chance.random() < 0.5:
                lived.remove()
            else:
                os.close(lived.lock_fd)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    scratch_root.remove_abandoned(tmp_path, keep="nobody")
    assert list(tmp_path.iterdir()) == []
