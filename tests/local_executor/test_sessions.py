"""Sessions in the sandbox: what the files of the host are for them. `tests/executors` has what all executors do."""

from pathlib import Path

import pytest

from infra.contract.errors import ExecutorUnavailable
from infra.contract.execution import Command
from tests.local_executor.rig import MB, RUN_ID, Bench

PROGRAM = """
import os, sys
while size := sys.stdin.buffer.read(4):
    reply = str(eval(sys.stdin.buffer.read(int.from_bytes(size, 'big')).decode())).encode()
    os.write(1, len(reply).to_bytes(4, 'big') + reply)
"""


async def test_a_session_reads_its_mounts_and_cannot_change_them(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("mounted")
    tmp_path.chmod(0o711)
    mounts, etc = {"/opt/deep/er": tmp_path / "folder"}, {"some/dir/policy.json": "{}"}
    command = Command(RUN_ID, "session", "python", PROGRAM, 60, mounts=mounts, etc=etc)
    session = await bench.executor.open(command, MB, 1)
    read = b"open('/opt/deep/er/file').read(), open('/etc/some/dir/policy.json').read()"
    assert await session.ask(read, 30) == b"('mounted', '{}')"
    for folder in ("/opt/deep/er", "/etc/some/dir", "/"):
        assert await session.ask(f"os.access('{folder}', os.W_OK)".encode(), 30) == b"False"
    assert await session.ask(b"os.path.exists('/workspace')", 30) == b"False"
    await session.close()
    assert (tmp_path / "folder" / "file").read_text() == "mounted"
    assert bench.left() == []


async def test_without_a_sandbox_there_are_no_sessions(unsafe: Bench) -> None:
    with pytest.raises(ExecutorUnavailable, match="without a sandbox"):
        await unsafe.executor.open(Command(RUN_ID, "session", "python", PROGRAM, 60), MB, 1)
