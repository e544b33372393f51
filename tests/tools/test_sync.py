"""Synchronisation of the workspace with a program's folder, before and after it runs."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from infra.contract.errors import HostExhausted, LimitExceeded
from infra.local_executor import LocalExecutor
from infra.scratch_root import ScratchRoot
from tests.local_executor.rig import scratch_content
from tests.support.small_disk import fill, small_disk
from tests.tools.conftest import ENTRIES, FILE_BYTES, FILES
from tests.tools.kit import Kit
from worker.toolkit.execution import ExecutionResult
from worker.tools.file_delete import FileDeleteResult
from worker.tools.file_write import FileWriteResult


@pytest.fixture
def on_disk(kit: Kit, tmp_path: Path) -> Iterator[Kit]:
    """Return a kit with a scratch space of 40 MB, more than a workspace may hold."""
    with small_disk(tmp_path / "disk", "40m") as disk:
        executor = LocalExecutor(ScratchRoot(disk / "scratch"))
        yield replace(kit, executor=executor, scratch=disk / "scratch")
        executor.close()


async def test_only_changed_files_are_stored(kit: Kit) -> None:
    for path in ("same", "changed", "gone", "d/same", "rewritten", "touched"):
        await kit.files.write(path, b"before")
    await kit.shell(
        "echo after > changed; rm gone; echo x > new; mkdir -p e/f; echo y > e/f/g;"
        "printf before > rewritten; touch touched; chmod +x same"
    )
    assert kit.context.written == ["changed", "e/f/g", "new"]
    assert kit.context.deleted == ["gone"]
    assert kit.context.skipped == []
    found = await kit.shell("cat changed new e/f/g d/same; ls; test -x same")
    assert found.stdout_tail == "after\nx\ny\nbeforechanged\nd\ne\nnew\nrewritten\nsame\ntouched\n"
    assert (kit.context.written, kit.context.deleted) == ([], [])


async def test_programs_see_the_changes_of_the_file_tools(kit: Kit) -> None:
    await kit.shell("echo 1 > a; echo 1 > b")
    await kit.files.write("a", b"2\n")
    await kit.files.write("c", b"3\n")
    for path in ("b", "c"):
        await kit.call("file_delete", FileDeleteResult, path=path)
    assert (await kit.shell("cat a; ls")).stdout_tail == "2\na\n"


async def test_links_and_special_files_are_reported_and_never_stored(kit: Kit) -> None:
    await kit.shell(
        "echo x > real; ln -s real soft; ln -s /etc/passwd out; ln -s / root; ln -s . loop; mkfifo pipe; ln real hard;"
        "python3 -c \"import socket; socket.socket(socket.AF_UNIX).bind('sock')\""
    )
    assert kit.context.written == ["hard", "real"]
    assert kit.context.skipped == ["loop", "out", "pipe", "root", "sock", "soft"]
    assert (await kit.shell("ls")).stdout_tail == "hard\nreal\n"


async def test_a_link_in_place_of_a_file_or_folder_is_not_followed(kit: Kit) -> None:
    await kit.files.write("file", b"mine")
    await kit.files.write("folder/file", b"mine")
    await kit.shell("rm -r file folder; ln -s /proc/version file; ln -s /etc folder")
    assert kit.context.written == []
    assert kit.context.deleted == ["file", "folder/file"]
    assert kit.context.skipped == ["file", "folder"]


async def test_a_file_may_become_a_folder_and_a_folder_a_file(kit: Kit) -> None:
    await kit.files.write("a", b"file")
    await kit.files.write("b/c", b"inside")
    await kit.shell("rm -r a b; mkdir a; echo 1 > a/x; echo 2 > b")
    assert (kit.context.written, kit.context.deleted) == (["a/x", "b"], ["a", "b/c"])
    assert (await kit.shell("cat a/x b")).stdout_tail == "1\n2\n"


@pytest.mark.parametrize("name", ["ü 日本 😀", "e\u0301", "-rf", " lead", "trail ", "x" * 255, "%41?#&=+", "'\"$`"])
async def test_unusual_file_names_are_stored(kit: Kit, name: str) -> None:
    await kit.files.write(f"in/{name}", b"content")
    source = "import os\nfor n in os.listdir('in'): open(f'out-{n}'[:250], 'wb').write(open(f'in/{n}', 'rb').read())"
    await kit.call("code", ExecutionResult, language="python", source=source)
    assert await kit.files.read(f"out-{name}"[:250]) == b"content"


async def test_file_names_that_are_not_valid_paths_are_reported(kit: Kit) -> None:
    source = (
        "import os\n"
        "for name in (b'bad\\xff', b'new\\nline', b'back\\\\slash', b'esc\\x1b[31m'): open(name, 'w').close()\n"
        "open('good', 'w').close()"
    )
    await kit.call("code", ExecutionResult, language="python", source=source)
    assert kit.context.written == ["good"]
    assert kit.context.skipped == ["back\\slash", "bad\\xff", "esc\\x1b[31m", "new\\nline"]


async def test_a_file_over_the_limit_is_named_and_nothing_is_stored(kit: Kit) -> None:
    with pytest.raises(LimitExceeded, match=f"'big' has {FILE_BYTES + 1} bytes, a file may have at most {FILE_BYTES}"):
        await kit.shell(f"echo x > small; head -c {FILE_BYTES + 1} /dev/zero > big")
    assert (await kit.shell("ls")).stdout_tail == ""


async def test_a_sparse_file_counts_with_its_full_size(kit: Kit) -> None:
    with pytest.raises(LimitExceeded, match="'sparse' has"):
        await kit.shell("truncate -s 200M sparse")


async def test_a_workspace_over_the_total_limit_is_rejected(kit: Kit) -> None:
    with pytest.raises(LimitExceeded, match="the workspace has 36000000 bytes, at most 30000000 are allowed"):
        await kit.shell("for n in 1 2 3; do head -c 12000000 /dev/zero > $n; done")


async def test_a_workspace_with_too_many_files_is_rejected(kit: Kit) -> None:
    with pytest.raises(LimitExceeded, match=f"the workspace has {FILES + 1} files, at most {FILES} are allowed"):
        await kit.shell(f"touch $(seq 1 {FILES + 1})")


@pytest.mark.parametrize("make", ["mkdir $(seq 1 701)", "for n in $(seq 1 701); do ln -s x $n; done"])
async def test_a_workspace_with_too_many_entries_of_any_kind_is_rejected(kit: Kit, make: str) -> None:
    with pytest.raises(LimitExceeded, match=f"more than {ENTRIES} entries"):
        await kit.shell(make)


async def test_files_without_permissions_are_stored(kit: Kit) -> None:
    await kit.shell("mkdir -p a/b; echo x > a/b/c; chmod 0 a/b/c a/b a")
    assert kit.context.written == ["a/b/c"]
    assert (await kit.shell("chmod -R u+rwX a; cat a/b/c; rm -r a")).stdout_tail == "x\n"
    assert kit.context.deleted == ["a/b/c"]


async def test_a_program_may_delete_everything_in_its_folder(kit: Kit) -> None:
    await kit.files.write("a", b"1")
    await kit.failed("shell", command="rm -rf /workspace/* && rmdir /workspace")
    assert kit.context.deleted == ["a"]
    assert (await kit.shell("echo again > b; ls")).stdout_tail == "b\n"


async def test_files_deeper_than_a_path_may_be_are_reported(kit: Kit) -> None:
    source = "import os\nfor n in range(100):\n    os.mkdir('d' * 200); os.chdir('d' * 200)\nopen('f', 'w').close()"
    await kit.call("code", ExecutionResult, language="python", source=source)
    assert kit.context.written == []
    assert kit.context.skipped
    assert (await kit.shell("ls")).stdout_tail == f"{'d' * 200}\n"


async def test_release_leaves_no_file_on_the_host(kit: Kit) -> None:
    await kit.shell("mkdir -p a/b; echo x > a/b/c; chmod 0 a/b a; seq 1 100000")
    assert scratch_content(kit.scratch)
    await kit.executor.release(kit.run_id)
    assert scratch_content(kit.scratch) == []
    assert (await kit.shell("chmod -R u+rwX a; cat a/b/c")).stdout_tail == "x\n"


@pytest.mark.skipif(not (shutil.which("git") and shutil.which("make")), reason="needs git and make")
async def test_git_and_make_go_on_where_the_files_come_from_the_store(kit: Kit) -> None:
    """A repository has empty folders, and a product is out of date if its source is newer."""
    await kit.shell(
        "git init -q repo; printf 'z: a\\n\\tcp a z\\n' > Makefile; echo one > a; sleep 0.01; make -s;"
        "umask 77; touch private"
    )
    await kit.executor.release(kit.run_id)
    assert (await kit.shell("cd repo; git status --porcelain; git branch --show-current | wc -l")).stdout_tail == "1\n"
    assert (await kit.shell("make -q && stat -c %a private")).stdout_tail == "600\n"
    await kit.shell("sleep 0.01; echo two > a")
    await kit.executor.release(kit.run_id)
    assert (await kit.shell("make -s; cat z")).stdout_tail == "two\n"
    await kit.call("file_write", FileWriteResult, path="a", content="three")
    await kit.executor.release(kit.run_id)
    assert (await kit.shell("make -s; cat z")).stdout_tail == "three"


PRINTING = "yes 'what there is no room for' | head -c 1M"


async def test_a_run_that_fills_the_disk_exceeds_its_limit(on_disk: Kit) -> None:
    filling = "for n in 1 2 3 4; do head -c 15M /dev/zero > $n 2> /dev/null; done;"
    with pytest.raises(LimitExceeded, match=r"the workspace has .* bytes, at most 30000000 are allowed"):
        await on_disk.call("shell", ExecutionResult, command=f"{filling} {PRINTING}")
    assert await on_disk.files.list() == []


async def test_a_run_on_a_disk_filled_by_others_reports_an_exhausted_host(on_disk: Kit) -> None:
    await on_disk.files.write("mine", b"x" * 100)
    await on_disk.shell("true")
    ballast = fill(on_disk.scratch)
    with pytest.raises(HostExhausted, match="disk space"):
        await on_disk.shell(PRINTING)
    await on_disk.files.write("more", b"x" * 10_000)
    with pytest.raises(HostExhausted, match="disk space"):
        await on_disk.shell("true")
    ballast.unlink()
    assert (await on_disk.shell("cat mine more | wc -c")).stdout_tail == "10100\n"
