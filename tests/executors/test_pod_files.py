"""Files of a pod: lent by signed URLs, taken back from slots, with the same changes as on the worker's own host."""

import hashlib
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path
from threading import Event
from uuid import uuid4

import msgspec
import pytest

from infra.contract.errors import FilesUnavailable, InputChanged, InvalidInput, LimitExceeded
from infra.contract.execution import Command, Execution
from infra.contract.files import FolderEntry
from infra.contract.lending import ReturnedChanges, ReturnedFile
from infra.k8s_executor.pod_call import SLOTS
from infra.local_executor import LocalExecutor
from infra.pod_runner.transfer import Transfers
from infra.scratch_root import ScratchRoot
from infra.settings import S3Settings
from infra.workspace import S3RunFiles, WorkspaceLimits, Workspaces
from tests.executors.pods import PodExecutor, Pods
from tests.local_executor.rig import PlainFiles
from tests.support.faulty_s3 import cut, faulty_s3, passed, refused, truncated

CHANGES = """
import os
for name in ('kept', 'same', 'locked'): assert open(name).read() == name, name
assert os.listdir('empty') == [] and os.stat('private').st_mode & 0o777 == 0o700
assert os.stat('old').st_mtime_ns == 1_000_000_001 and os.stat('tool').st_mode & 0o777 == 0o755
open('same', 'w').write('same')
open('rewritten', 'w').write('new content')
os.chmod('locked', 0)
os.utime('old', ns=(5, 7))
os.remove('removed')
os.rmdir('empty')
os.makedirs('made/deep')
os.mkdir('made/private', 0o700)
open('made/deep/füße.txt', 'w').write('x' * 70000)
open('made/nothing', 'w').close()
os.symlink('/etc/passwd', 'link')
os.mkfifo('fifo')
open('.run/planted', 'w').write('no') if os.path.isdir('.run') else None
"""


Execute = Callable[[S3RunFiles, Command], Awaitable[Execution]]


async def ignore(_: str, __: object) -> bool:
    return False


def command(source: str, interpreter: str = "python", timeout_s: float = 60) -> Command:
    return Command("run-1", "step-0", interpreter, source, timeout_s)  # type: ignore[arg-type]


async def prepared(workspaces: Workspaces, user: str) -> S3RunFiles:
    """Return a workspace with files of all kinds."""
    made = workspaces.run(user, "run-1", 1, {}, {"empty": FolderEntry(), "private": FolderEntry(mode=0o700)})
    for name in ("kept", "same", "rewritten", "locked", "removed", "old", "tool", ".run/step-0.stdout"):
        await made.write(name, name.encode())
    entries = {path: entry for path, entry in made.take_uncommitted().items() if entry}
    entries["old"] = msgspec.structs.replace(entries["old"], mtime_ns=1_000_000_001)
    entries["tool"] = msgspec.structs.replace(entries["tool"], executable=True)
    return workspaces.run(user, "run-1", 2, entries, {"empty": FolderEntry(), "private": FolderEntry(mode=0o700)})


def tree(root: Path) -> dict[str, tuple[int, bytes]]:
    """Return mode and content of all entries below a folder."""
    return {
        str(path.relative_to(root)): (path.lstat().st_mode & 0o777, path.read_bytes() if path.is_file() else b"")
        for path in root.rglob("*")
    }


@pytest.fixture
def pod_execute(pods: Pods, tmp_path: Path) -> Execute:
    (tmp_path / "output").mkdir()

    async def execute(files: S3RunFiles, command: Command) -> Execution:
        executor = PodExecutor(pods, lambda _: files, tmp_path / "output")
        return await executor.execute(command, PlainFiles(), ignore)

    return execute


async def test_a_pod_and_the_local_sandbox_leave_the_same_workspace(
    workspaces: Workspaces, pod_execute: Execute, tmp_path: Path
) -> None:
    user = f"user-{uuid4().hex}"
    local = LocalExecutor(ScratchRoot(tmp_path / "scratch"))
    left = []
    for name in ("local", "pod"):
        files = await prepared(workspaces, f"{user}-{name}")
        if name == "local":
            ended = await local.execute(command(CHANGES), files, ignore)
        else:
            ended = await pod_execute(files, command(CHANGES))
        assert ended.exit_code == 0, ended.stderr.read_text()
        changes = ended.changes
        written = [(file.path, file.size_bytes) for file in changes.written]
        changed = files.take_uncommitted()
        times = {path: changed[path].mtime_ns for path in ("old", "locked") if changed[path]}  # type: ignore[union-attr]
        folders = files.take_uncommitted_folders()
        await files.materialise(tmp_path / f"{name}-again")
        again = tree(tmp_path / f"{name}-again")
        assert (tmp_path / f"{name}-again" / "old").stat().st_mtime_ns == 7
        left.append((written, changes.deleted, changes.skipped, sorted(changed), times["old"], folders, again))
    local.close()
    assert left[0] == left[1]
    assert left[1][1:3] == (["removed"], ["fifo", "link"])


async def test_files_beyond_the_slots_come_in_a_tar_file(
    files: S3RunFiles, pod_execute: Execute, tmp_path: Path
) -> None:
    count = SLOTS + 20
    folder = "d" * 120
    source = f"import os\nos.mkdir('{folder}')\nfor n in range({count}): open(f'{folder}/{{n}}', 'w').write('ä' * n)"
    ended = await pod_execute(files, command(source))
    assert len(ended.changes.written) == count
    changed = files.take_uncommitted()
    in_slots = [entry for entry in changed.values() if entry and "/slot-" in entry.key]
    assert len(in_slots) == SLOTS
    assert min(entry.size_bytes for entry in in_slots) == 2 * 20
    for number in range(count):
        assert await files.read(f"{folder}/{number}") == ("ä" * number).encode()


async def test_a_workspace_beyond_its_limits_is_not_stored(s3: S3Settings, pod_execute: Execute) -> None:
    small = Workspaces(s3, WorkspaceLimits(file_bytes=1000, total_bytes=2000, files=3, entries=5))
    files = small.run(f"user-{uuid4().hex}", "run-1", 1, {})
    for source, message in (
        ("head -c 1001 /dev/zero > big", "'big' has 1001 bytes, a file may have at most 1000"),
        ("touch 1 2 3 4", "the workspace has 4 files, at most 3"),
        (
            "for n in 1 2 3; do head -c 70$n /dev/zero > $n; done",
            "at most 2000 are allowed; its largest file is '3' with",
        ),
        ("mkdir 1 2 3 4 5 6", "more than 5 entries"),
    ):
        with pytest.raises(LimitExceeded, match=message):
            await pod_execute(files, command(source, "sh"))
    assert not files.take_uncommitted()
    small.close()


async def test_a_pod_does_not_run_on_an_input_file_that_was_overwritten(
    workspaces: Workspaces, pod_execute: Execute
) -> None:
    user = f"user-{uuid4().hex}"
    made = workspaces.run(user, "run-1", 1, {})
    await made.write("input", b"other bytes")
    entry = made.take_uncommitted()["input"]
    assert entry
    digest = hashlib.sha256(b"these bytes").hexdigest()
    files = workspaces.run(user, "run-1", 2, {"input": msgspec.structs.replace(entry, sha256=digest)})
    with pytest.raises(InputChanged, match="'input' was overwritten"):
        await pod_execute(files, command("echo started", "sh"))


async def test_transfers_are_repeated_while_the_store_fails(s3: S3Settings, pod_execute: Execute) -> None:
    with faulty_s3(s3) as proxy:
        through = Workspaces(proxy.settings)
        files = through.run(f"user-{uuid4().hex}", "run-1", 1, {})
        await files.write("input", b"x" * 100_000)
        unavailable = refused(HTTPStatus.SERVICE_UNAVAILABLE, "SlowDown")
        # The pod fetches the manifest and the file; the first PUT is that of the manifest, by the worker.
        proxy.then("GET", unavailable, passed, truncated(b"xxxx"))
        proxy.then("PUT", passed, cut, unavailable)
        ended = await pod_execute(files, command("wc -c < input; cp input output", "sh"))
        assert ended.stdout.read_text() == "100000\n"
        assert await files.read("output") == b"x" * 100_000
        proxy.ending.set()
        through.close()


def returned(**fields: object) -> ReturnedChanges:
    plain = {"files": [], "metadata": {}, "deleted": [], "folders": {}, "skipped": [], "unkept_folders": 0}
    return ReturnedChanges(**{**plain, **fields})  # type: ignore[arg-type]


def returned_file(path: str = "a", slot: int | None = 0, **fields: object) -> ReturnedFile:
    plain = {"size_bytes": 1, "sha256": "0" * 64, "mode": 0o644, "mtime_ns": 0}
    return ReturnedFile(path=path, slot=slot, **{**plain, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        (returned(files=[returned_file("../up")]), InvalidInput),
        (returned(files=[returned_file(".run/planted")]), InvalidInput),
        (returned(files=[returned_file("a", 0), returned_file("b", 0)]), InvalidInput),
        (returned(files=[returned_file("a", 0), returned_file("a", 1)]), InvalidInput),
        (returned(files=[returned_file(slot=2)]), InvalidInput),
        (returned(files=[returned_file(slot=-1)]), InvalidInput),
        (returned(files=[returned_file(size_bytes=-1)]), InvalidInput),
        (returned(files=[returned_file(sha256="no")]), InvalidInput),
        (returned(files=[returned_file(mode=0o4755)]), InvalidInput),
        (returned(files=[returned_file(size_bytes=2**40)]), LimitExceeded),
        (returned(files=[returned_file(size_bytes=7)]), InvalidInput),
        (returned(files=[returned_file(slot=1)]), FilesUnavailable),
        (returned(metadata={"unknown": (0o644, 0)}), InvalidInput),
        (returned(deleted=["unknown"]), InvalidInput),
        (returned(deleted=[".run/step-0.stdout"]), InvalidInput),
        (returned(folders={"/etc": 0o755}), InvalidInput),
        (returned(folders={f"f{number}": 0o755 for number in range(1001)}), InvalidInput),
    ],
)
async def test_changes_that_no_runner_returns_are_refused(
    workspaces: Workspaces, s3: S3Settings, changes: ReturnedChanges, error: type[Exception]
) -> None:
    made = workspaces.run(f"user-{uuid4().hex}", "run-1", 1, {})
    await made.write(".run/step-0.stdout", b"kept")
    made.take_uncommitted()
    loan, lent = await made.lend(2, 60)
    put(lent.slots.files[0], b"x")
    with pytest.raises(error):
        await made.take_back(loan, changes)
    assert not made.take_uncommitted()
    assert not made.take_uncommitted_folders()


def put(url: str, data: bytes) -> None:

    Transfers(float("inf"), Event()).store("x", url, lambda: [data], len(data))


async def test_a_file_whose_slot_is_overwritten_later_is_not_read(files: S3RunFiles) -> None:
    loan, lent = await files.lend(1, 60)
    put(lent.slots.files[0], b"x")
    await files.take_back(loan, returned(files=[returned_file(sha256=hashlib.sha256(b"x").hexdigest())]))
    assert await files.read("a") == b"x"
    put(lent.slots.files[0], b"y")
    with pytest.raises(InputChanged):
        await files.read("a")
