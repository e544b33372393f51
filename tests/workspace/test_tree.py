"""Directories that hostile programs have filled."""

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from infra.contract.errors import LimitExceeded
from infra.workspace.tree import Tree


def test_a_scan_finds_regular_files_and_skips_everything_else(work: Path) -> None:
    work.mkdir()
    (work / "good.txt").write_text("good")
    (work / "passwd").symlink_to("/etc/passwd")
    (work / "etc").symlink_to("/etc")
    (work / "loop").symlink_to("loop")
    os.mkfifo(work / "fifo")
    (work / "bad\nname").write_text("x")
    (work / "back\\slash").write_text("x")
    (work / "bad\tfolder").mkdir()
    (work / "bad\tfolder" / "inside").write_text("x")
    Path(os.fsdecode(os.fsencode(work) + b"/not-\xff-utf8")).write_text("x")
    server = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    os.chdir(work)
    server.bind("socket")
    os.chdir(here)
    server.close()
    with Tree(work) as tree:
        files, _, skipped = tree.scan(".run", 100)
    assert list(files) == ["good.txt"]
    assert skipped == sorted(
        ["bad\\nname", "back\\slash", "bad\\tfolder", "etc", "fifo", "loop", "not-\\xff-utf8", "passwd", "socket"]
    )
    "".join(skipped).encode()


def test_a_name_that_is_too_long_for_a_key_is_skipped(work: Path) -> None:
    deep = work.joinpath(*["d" * 200] * 3)
    deep.mkdir(parents=True)
    (deep / "file").write_text("x")
    with Tree(work) as tree:
        files, _, skipped = tree.scan(".run", 100)
    assert not files
    assert len(skipped) == 1


def test_a_scan_stops_at_its_limit_of_entries(work: Path) -> None:
    work.mkdir()
    for n in range(20):
        (work / f"{n}").mkdir()
    with Tree(work) as tree, pytest.raises(LimitExceeded, match="more than 19 entries"):
        tree.scan(".run", 19)


def test_pruning_leaves_only_wanted_files(work: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("precious")
    (work / "a/b").mkdir(parents=True)
    (work / "a/b/keep").write_text("keep")
    (work / "a/link").symlink_to(outside)
    (work / "wanted-but-a-link").symlink_to(outside / "precious")
    (work / "wanted-but-a-folder/x/y").mkdir(parents=True)
    os.mkfifo(work / "wanted-but-a-fifo")
    (work / "empty").mkdir()
    (work / "parent").symlink_to(outside)
    wanted = {"a/b/keep", "wanted-but-a-link", "wanted-but-a-folder", "wanted-but-a-fifo", "parent/precious"}
    with Tree(work) as tree:
        assert list(tree.prune(wanted, {"a", "a/b", "parent"}).files) == ["a/b/keep"]
    assert sorted(str(p.relative_to(work)) for p in work.rglob("*")) == ["a", "a/b", "a/b/keep"]
    assert (outside / "precious").read_text() == "precious"


def test_a_folder_far_deeper_than_stack_and_descriptors_is_removed(work: Path) -> None:
    work.mkdir()
    dig = "import os\nfor _ in range(3000):\n    os.mkdir('d'); os.chdir('d')\nopen('f', 'w').close()"
    subprocess.run([sys.executable, "-c", dig], cwd=work, check=True)
    with Tree(work) as tree:
        assert len(tree.scan(".run", 10_000).skipped) == 1
        tree.prune((), ())
    assert list(work.iterdir()) == []


def test_links_are_neither_read_nor_written_through(work: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("precious")
    work.mkdir()
    (work / "folder").symlink_to(outside)
    (work / "file").symlink_to(outside / "file")
    with Tree(work) as tree:
        with pytest.raises(OSError):
            tree.write("folder/file", [b"evil"], mode=0o644, mtime_ns=0)
        with pytest.raises(OSError):
            tree.digest("folder/file")
        with pytest.raises(OSError):
            tree.digest("file")
        tree.write("file", [b"replaces the link"], mode=0o644, mtime_ns=0)
    assert (outside / "file").read_text() == "precious"
    assert (work / "file").read_text() == "replaces the link"
    assert not (work / "file").is_symlink()


def test_opening_a_fifo_does_not_block(work: Path) -> None:
    work.mkdir()
    os.mkfifo(work / "fifo")
    with Tree(work) as tree, pytest.raises(OSError, match="not a regular file"):
        tree.digest("fifo")


def test_a_failed_write_leaves_the_old_file(work: Path) -> None:
    with Tree(work) as tree:
        tree.write("a/file", [b"old"], mode=0o644, mtime_ns=0)
        with pytest.raises(ZeroDivisionError):
            tree.write("a/file", (bytes([1 // n]) for n in (1, 0)), mode=0o644, mtime_ns=0)
    assert [p.name for p in (work / "a").iterdir()] == ["file"]
    assert (work / "a/file").read_bytes() == b"old"


LOCKED = """
import os, sys
from pathlib import Path
from infra.workspace.tree import Tree
work = Path(sys.argv[1])
if os.geteuid() == 0:
    os.chown(work, 65534, 65534)
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
(work / "locked/in").mkdir(parents=True)
(work / "locked/in/file").write_text("1")
(work / "drop/in").mkdir(parents=True)
(work / "drop/in/file").write_text("2")
for path in ("locked/in/file", "locked/in", "locked", "drop/in/file", "drop/in", "drop", "."):
    (work / path).chmod(0)
with Tree(work) as tree:
    assert sorted(tree.scan(".run", 100).files) == ["drop/in/file", "locked/in/file"]
    assert tree.digest("locked/in/file")[0].size_bytes == 1
    (work / "locked/in").chmod(0o500)
    (work / "drop/in").chmod(0)
    assert list(tree.prune({"locked/in/file"}, {"locked", "locked/in"}).files) == ["locked/in/file"]
    tree.write("locked/in/file", [b"new"], mode=0o755, mtime_ns=0)
assert (work / "locked/in/file").read_text() == "new"
assert os.listdir(work) == ["locked"]
"""


def test_locked_files_and_folders_are_unlocked_for_their_owner() -> None:
    """Runs as an unprivileged user, because permissions do not restrict root."""
    folder = Path(tempfile.mkdtemp())
    try:
        subprocess.run([sys.executable, "-c", LOCKED, str(folder)], check=True)
    finally:
        with Tree(folder) as tree:
            tree.prune((), ())
        folder.rmdir()
