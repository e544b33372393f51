"""Scratch folders of workers: removed after the worker and its programs have ended, and never earlier."""

import fcntl
import logging
import os
import random
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from infra import folders, scratch_root
from infra.contract.errors import ExecutorUnavailable
from infra.local_executor import LocalExecutor
from infra.scratch_root import LOCK, ScratchRoot
from tests.local_executor.rig import scratch_content, wait_for_programs, worker_process
from tests.support.processes import children_of, processes_with
from tests.support.small_disk import fill, small_disk
from tests.support.waiting import wait_until

SANDBOX_UID = 300_000


@contextmanager
def other_worker(root: Path, marker: str = "marker") -> Iterator["subprocess.Popen[bytes]"]:
    """Run a worker in another process that has started a program."""
    with worker_process(root, marker, "sandbox", 1) as process:
        wait_for_programs(process, 1)
        yield process


@contextmanager
def new_worker(folder: Path) -> Iterator[Path]:
    """Run a worker in this process."""
    executor = LocalExecutor(ScratchRoot(folder))
    yield folder
    executor.close()


@pytest.fixture
def marker() -> Iterator[str]:
    made = f"marker-{random.getrandbits(64):x}"
    yield made
    wait_until(lambda: not processes_with(made), "no process of the test is left")


def remove_abandoned(parent: Path) -> None:
    """Start and end another worker in `parent`: it removes the folders of ended workers."""
    ScratchRoot(parent / f"other-{random.getrandbits(64):x}").remove()


def is_free(folder: Path) -> bool:
    """Return True if no process holds the lock."""
    with (folder / LOCK).open("rb") as lock, suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def litter(folder: Path) -> None:
    """Create files as a program may leave them: owned by the uid of the sandbox, and locked."""
    deep = folder / "run-1" / "workspace" / "a" / "b"
    deep.mkdir(parents=True, exist_ok=True)
    (deep / "file").write_bytes(b"x")
    (deep.parent / "link").symlink_to("/etc")
    if os.geteuid() == 0:
        for path in (deep / "file", deep, deep.parent):
            os.chown(path, SANDBOX_UID, SANDBOX_UID)
    for path in (deep / "file", deep, deep.parent):
        path.chmod(0)


@pytest.mark.parametrize("content", ["", "4711\n", "# held while a package is installed\n"])
def test_a_folder_with_the_lock_of_another_program_stays(tmp_path: Path, content: str) -> None:
    """A user may give the workers a folder with folders of other programs in it."""
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / LOCK).write_text(content)
    (tmp_path / "project" / "thesis").write_text("years of work")
    remove_abandoned(tmp_path)
    assert (tmp_path / "project" / "thesis").read_text() == "years of work"


def actions(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records]


def test_the_folder_of_a_killed_worker_is_removed_by_the_next_worker(
    tmp_path: Path, marker: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with other_worker(tmp_path / "killed", marker) as process:
        process.kill()
        process.wait()
    litter(tmp_path / "killed")
    wait_until(lambda: is_free(tmp_path / "killed"), "its programs are dead")
    with new_worker(tmp_path / "next"):
        assert [path.name for path in tmp_path.iterdir()] == ["next"]
    assert actions(caplog) == ["scratch.removed"]


def test_the_folder_of_a_living_worker_is_not_removed(tmp_path: Path, marker: str) -> None:
    with other_worker(tmp_path / "living", marker), new_worker(tmp_path / "next"):
        assert scratch_content(tmp_path / "living") == ["run-0"]
        assert processes_with(marker)


def test_the_folder_of_a_killed_worker_is_not_removed_while_its_programs_live(tmp_path: Path, marker: str) -> None:
    with other_worker(tmp_path / "killed", marker) as process:
        (guard,) = children_of(process.pid)
        os.kill(guard, signal.SIGSTOP)
        process.kill()
        process.wait()
        assert processes_with(marker)
        try:
            with new_worker(tmp_path / "next"):
                assert scratch_content(tmp_path / "killed") == ["run-0"]
        finally:
            os.kill(guard, signal.SIGCONT)
    wait_until(lambda: is_free(tmp_path / "killed"), "its programs are dead")
    with new_worker(tmp_path / "next"):
        assert not (tmp_path / "killed").exists()


def test_a_program_does_not_hold_the_lock_of_its_worker(tmp_path: Path, marker: str) -> None:
    def held_by(pid: int) -> bool:
        fds = Path(f"/proc/{pid}/fd")
        return any(fd.readlink() == tmp_path / "own" / LOCK for fd in fds.iterdir() if fd.is_symlink())

    with other_worker(tmp_path / "own", marker) as process:
        (guard,) = children_of(process.pid)
        assert held_by(process.pid)
        assert held_by(guard)
        programs = set(processes_with(marker)) - {process.pid, guard}
        assert programs
        assert not any(held_by(pid) for pid in programs)


def test_a_folder_without_a_lock_is_not_removed(tmp_path: Path) -> None:
    """Its worker is just creating it, or belongs to a release without locks."""
    (tmp_path / "older" / "run-1").mkdir(parents=True)
    (tmp_path / "file").touch()
    (tmp_path / "elsewhere" / "file").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with new_worker(tmp_path / "next"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "file", "link", "older"]
    assert [path.name for path in (tmp_path / "older").iterdir()] == ["run-1"]


def test_a_link_to_a_folder_with_a_free_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / LOCK).write_text(f"{'0' * 16}\n")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "precious")
    with new_worker(tmp_path / "root" / "next"):
        pass
    assert (tmp_path / "precious" / LOCK).exists()
    with pytest.raises(ExecutorUnavailable, match="it is a link"):
        LocalExecutor(ScratchRoot(tmp_path / "root" / "link"))
    assert (tmp_path / "precious" / LOCK).exists()


def test_the_folder_of_another_user_is_not_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    abandoned(tmp_path / "theirs")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    remove_abandoned(tmp_path)
    assert (tmp_path / "theirs").exists()


def abandoned(folder: Path) -> None:
    """Create a scratch folder whose worker has ended."""
    # Elsewhere at first: a new worker removes the abandoned folders beside its own.
    made = folder.parent / "elsewhere" / folder.name
    root = ScratchRoot(made)
    litter(made)
    os.close(root.lock_fd)
    made.rename(folder)
    made.parent.rmdir()


def test_a_folder_that_cannot_be_removed_is_logged_and_does_not_prevent_the_start(
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
    with new_worker(tmp_path / "next"):
        assert {path.name for path in tmp_path.iterdir()} == {"stuck", "next"}
    (record,) = [record for record in caplog.records if record.message == "scratch.remove_failed"]
    assert record.levelno == logging.WARNING
    assert record.fields["folder"] == str(tmp_path / "stuck")  # type: ignore[attr-defined]
    monkeypatch.undo()
    with new_worker(tmp_path / "next"):
        assert [path.name for path in tmp_path.iterdir()] == ["next"]


def test_a_worker_that_ends_normally_removes_its_folder(tmp_path: Path) -> None:
    with new_worker(tmp_path / "own") as folder:
        litter(folder)
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_cannot_remove_its_folder_logs_it_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    executor = LocalExecutor(ScratchRoot(tmp_path / "own"))

    def refuse(folder: Path, keep: str) -> None:
        raise PermissionError(1, "Operation not permitted", "file")

    monkeypatch.setattr(scratch_root, "empty_folder", refuse)
    executor.close()
    assert actions(caplog) == ["scratch.remove_failed"]


def test_a_worker_reuses_the_folder_of_a_killed_worker_of_its_name(tmp_path: Path, marker: str) -> None:
    """The programs of the killed worker may still be alive at the start."""
    with other_worker(tmp_path / "own", marker) as process:
        process.kill()
    with new_worker(tmp_path / "own") as folder:
        assert not processes_with(marker)
        assert scratch_content(folder) == []


def test_two_workers_of_one_name_cannot_live_at_the_same_time(
    tmp_path: Path, marker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch_root, "LOCK_TIMEOUT_S", 0)
    with other_worker(tmp_path / "own", marker):
        with pytest.raises(ExecutorUnavailable, match="is in use by another worker; give each worker"):
            LocalExecutor(ScratchRoot(tmp_path / "own"))
        assert processes_with(marker)
        assert scratch_content(tmp_path / "own") == ["run-0"]


@pytest.mark.parametrize("step", ["open", "flock"])
def test_a_folder_that_is_removed_during_its_creation_is_created_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Between two steps of the creation another worker removes what exists until then."""
    module = os if step == "open" else fcntl
    real = getattr(module, step)
    interfered: list[bool] = []

    def interfere(*args: object, **options: object) -> object:
        if not interfered:
            interfered.append(True)
            (tmp_path / "own" / LOCK).write_text(f"{'0' * 16}\n")  # of a worker that was killed
            remove_abandoned(tmp_path)
            assert not (tmp_path / "own").exists()
        return real(*args, **options)

    monkeypatch.setattr(module, step, interfere)
    made = ScratchRoot(tmp_path / "own")
    assert interfered
    assert os.path.samestat(os.fstat(made.lock_fd), (tmp_path / "own" / LOCK).stat())
    remove_abandoned(tmp_path)
    assert (tmp_path / "own").exists()
    made.remove()


def test_concurrent_workers_never_share_a_folder(tmp_path: Path) -> None:
    """Half of the workers end normally, half of them are killed."""
    errors: list[str] = []

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(40):
            own = f"w{chance.randrange(4)}"
            remove_abandoned(tmp_path)
            root = ScratchRoot(tmp_path / own)
            mine = tmp_path / own / f"run-{seed}"
            mine.mkdir()
            remove_abandoned(tmp_path)
            if scratch_content(tmp_path / own) != [mine.name]:
                errors.append(f"{scratch_content(tmp_path / own)} beside {mine.name}")
            if chance.random() < 0.5:
                root.remove()
            else:
                os.close(root.lock_fd)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    remove_abandoned(tmp_path)
    assert list(tmp_path.iterdir()) == []


def crashed(folder: Path) -> ScratchRoot:
    """Return the scratch folder of a worker that has ended without removing it."""
    root = ScratchRoot(folder)
    os.close(root.lock_fd)
    return root


def test_the_next_worker_of_a_name_learns_that_its_predecessor_has_ended(tmp_path: Path) -> None:
    first = crashed(tmp_path / "own")
    second = ScratchRoot(tmp_path / "own")
    assert (first.dead_processes, second.dead_processes) == ((), (first.process,))
    assert first.process != second.process
    second.remove()


def test_a_worker_learns_of_the_processes_of_abandoned_folders(tmp_path: Path) -> None:
    ended = {crashed(tmp_path / name).process for name in ("a", "b")}
    root = ScratchRoot(tmp_path / "own")
    assert set(root.dead_processes) == ended
    assert [path.name for path in tmp_path.iterdir()] == ["own"]
    root.remove()


def test_dead_processes_are_handed_on_until_their_runs_are_recovered(tmp_path: Path) -> None:
    first = crashed(tmp_path / "own")
    second = crashed(tmp_path / "own")  # ended before a claim was answered
    third = ScratchRoot(tmp_path / "own")
    assert set(third.dead_processes) == {first.process, second.process}
    third.forget_dead()
    os.close(third.lock_fd)
    fourth = ScratchRoot(tmp_path / "own")
    assert fourth.dead_processes == (third.process,)
    fourth.remove()


def test_names_are_stored_before_the_folder_that_held_them_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = crashed(tmp_path / "a")

    def die(folder: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(scratch_root, "_remove_locked", die)
    with pytest.raises(KeyboardInterrupt):
        ScratchRoot(tmp_path / "own")
    assert ended.process in (tmp_path / "own" / LOCK).read_text()


@pytest.mark.parametrize("lacks", ["space", "files"])
def test_a_disk_that_a_killed_worker_has_filled_does_not_keep_the_next_one_from_starting(
    tmp_path: Path, lacks: str
) -> None:
    with small_disk(tmp_path / "disk", size="64k", files=16) as disk:
        ended = crashed(disk / "a")
        (disk / "a" / "run").mkdir()
        if lacks == "space":
            fill(disk / "a" / "run")
        else:
            with suppress(OSError):
                for number in range(100):
                    (disk / "a" / "run" / str(number)).touch()
            assert os.statvfs(disk).f_ffree == 0
        root = ScratchRoot(disk / "own")
        assert root.dead_processes == (ended.process,)
        assert [path.name for path in disk.iterdir()] == ["own"]
        root.remove()


def test_a_live_worker_is_not_taken_for_a_dead_one(tmp_path: Path) -> None:
    live = ScratchRoot(tmp_path / "live")
    other = ScratchRoot(tmp_path / "own")
    assert other.dead_processes == ()
    live.remove()
    other.remove()


def test_no_more_than_sixteen_dead_processes_are_kept(tmp_path: Path) -> None:
    ended = [crashed(tmp_path / "own") for _ in range(20)]
    root = ScratchRoot(tmp_path / "own")
    assert len(root.dead_processes) == 16
    assert set(root.dead_processes) <= {each.process for each in ended}
    root.remove()


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"../../etc\n", b"0123456789abcde", b"0123456789abcdef0\n", b"x" * 10_000]
)
def test_a_damaged_lock_file_names_no_process(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / LOCK).write_bytes(content)
    root = ScratchRoot(tmp_path / "own")
    assert root.dead_processes == ()
    root.remove()
