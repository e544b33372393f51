"""Isolation of a program in the sandbox: files, processes, network, users."""

import ast
import os
import socket
import sys
from pathlib import Path

import pytest

from infra.contract.execution import ExecLimits
from infra.local_executor import LocalExecutor, machine
from infra.scratch_root import ScratchRoot
from tests.local_executor.rig import REPOSITORY, RUN_ID, Bench, scratch_content


@pytest.mark.parametrize(
    "path",
    [
        "/etc/shadow",
        "/etc/machine-id",
        "/etc/npmrc",
        "/etc/pip.conf",
        "/root/.bashrc",
        "/root/.ssh",
        "/home",
        "/var/log",
        "/var/lib/dpkg",
        "/sys",
        "/work",
        "/run/secrets",
        "/proc/1/environ",
        "/proc/1/root/etc",
        "/proc/1/cwd/",
        "/proc/kcore",
        "/dev/sda",
        "/dev/mem",
        "/dev/kmsg",
        str(REPOSITORY / "pyproject.toml"),
    ],
)
async def test_files_of_the_host_are_not_visible(bench: Bench, path: str) -> None:
    ran = await bench.run(f"ls -a {path}/ || cat {path}")
    assert ran.code != 0, ran.out
    assert "root:" not in ran.out


async def test_folders_above_the_interpreter_contain_nothing_else(bench: Bench) -> None:
    ran = await bench.run(
        "import os, sys\n"
        "at = sys.base_prefix\n"
        "while at != '/':\n"
        "    above = os.path.dirname(at)\n"
        "    if above != '/' and not above.startswith('/usr'):\n"
        "        assert os.listdir(above) == [os.path.basename(at)], (above, os.listdir(above))\n"
        "    at = above\n"
        "print(sorted(os.listdir('/')))",
        "python",
    )
    assert ran.code == 0, ran.err
    allowed = {
        "bin",
        "dev",
        "etc",
        "lib",
        "lib32",
        "lib64",
        "proc",
        "run",
        "sbin",
        "tmp",
        "usr",
        "var",
        "workspace",
        "root",
    }
    assert set(ast.literal_eval(ran.out)) - allowed <= {Path(sys.base_prefix).resolve().parts[1]}


async def test_workspaces_of_other_runs_are_not_visible(bench: Bench) -> None:
    await bench.run("echo mine > theirs.txt", run_id="run-2")
    secret = next(bench.root.rglob("theirs.txt"))
    ran = await bench.run(f"cat {secret}; find / \\( -path /proc -o -path /usr \\) -prune -o -name theirs.txt -print")
    assert "mine" not in ran.out
    assert "theirs.txt" not in ran.out


async def test_runs_have_different_uids(bench: Bench) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can assign each run its own uid")
    uids = {(await bench.run("id -u", run_id=f"run-{number}")).out for number in range(4)}
    assert len(uids) == 4
    assert "0\n" not in uids


async def test_the_next_program_of_a_run_finds_its_files_unchanged(bench: Bench) -> None:
    await bench.run("mkdir folder; touch file folder/file; ln -s nowhere link")
    workspace = bench.root / RUN_ID / "workspace"
    before = {path: path.lstat().st_ctime_ns for path in workspace.rglob("*")}
    await bench.run("true")
    # An unchanged file is not read again, however large it is.
    assert {path: path.lstat().st_ctime_ns for path in workspace.rglob("*")} == before
    assert len(before) == 4


async def test_the_environment_of_the_worker_is_not_visible(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3_SECRET_KEY", "very-secret")
    ran = await bench.run("env; cat /proc/*/environ | tr '\\0' '\\n'")
    assert "very-secret" not in ran.out + ran.err
    assert "S3_" not in ran.out
    names = {line.partition("=")[0] for line in ran.out.splitlines()}
    known = {*machine.environment("/workspace", Path("/usr"), ExecLimits()), *machine.OFFLINE}
    assert names <= known | {"PWD", "OLDPWD", "SHLVL", "_"}


async def test_processes_of_the_host_are_not_visible(bench: Bench) -> None:
    ran = await bench.run("for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done; ls -d /proc/[0-9]* | wc -l")
    assert str(bench.root) not in ran.out
    assert int(ran.out.split()[-1]) <= 6
    killed = await bench.run(f"kill -9 {os.getpid()} || echo no such process")
    assert "no such process" in killed.out + killed.err


async def test_no_descriptor_of_the_worker_is_inherited(bench: Bench) -> None:
    ran = await bench.run(
        "import os\n"
        "for fd in os.listdir('/proc/self/fd'):\n"
        "    try: print(fd, os.readlink(f'/proc/self/fd/{fd}'))\n"
        "    except FileNotFoundError: pass",
        "python",
    )
    assert {line.split()[0] for line in ran.out.splitlines()} <= {"0", "1", "2"}, ran.out
    assert "0 /dev/null" in ran.out


async def test_a_program_has_no_network(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        ran = await bench.run(
            "import socket\n"
            f"for host, port in (('127.0.0.1', {port}), ('1.1.1.1', 443), ('169.254.169.254', 80)):\n"
            "    try:\n"
            "        socket.create_connection((host, port), timeout=5)\n"
            "        print('reached', host)\n"
            "    except OSError as error:\n"
            "        print('refused', host, error.errno)\n"
            "print([name for _, name in socket.if_nameindex()])\n"
            "try: print(socket.getaddrinfo('example.com', 80))\n"
            "except OSError: print('no names')",
            "python",
        )
        assert ran.code == 0, ran.err
        assert "reached" not in ran.out
        assert ran.out.count("refused") == 3
        assert "['lo']" in ran.out
        assert "no names" in ran.out


async def test_abstract_unix_sockets_of_the_host_are_unreachable(bench: Bench) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"\0{bench.marker}")
        listening.listen()
        ran = await bench.run(
            "import socket\ns = socket.socket(socket.AF_UNIX)\n"
            "try: s.connect('\\0MARKER'); print('reached')\n"
            "except OSError: print('refused')",
            "python",
        )
        assert ran.out == "refused\n"


@pytest.mark.parametrize("path", ["/", "/etc", "/usr", "/usr/bin", "/run", "/run/program", "/proc/sys/kernel", "/dev"])
async def test_folders_outside_the_workspace_are_read_only(bench: Bench, path: str) -> None:
    ran = await bench.run(f"echo x > {path}/planted || {{ echo x >> {path}; }}")
    assert ran.code != 0


async def test_the_workspace_and_tmp_are_writable(bench: Bench) -> None:
    ran = await bench.run("pwd; echo kept > here; echo gone > /tmp/there; cat here /tmp/there")
    assert ran.out == "/workspace\nkept\ngone\n"
    assert (bench.files.directory / "here").read_text() == "kept\n"
    again = await bench.run("cat here; cat /tmp/there")
    assert again.out == "kept\n"


async def test_a_program_has_no_capabilities_and_cannot_gain_any(bench: Bench) -> None:
    ran = await bench.run(
        "import os\n"
        "assert 0 not in (*os.getresuid(), *os.getresgid(), *os.getgroups()), os.getresuid()\n"
        "disk = os.makedev(8, 0)\n"
        "for call in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: os.setgroups([0]),\n"
        "             lambda: os.chroot('/tmp'), lambda: os.mknod('/workspace/disk', 0o60600, disk),\n"
        "             lambda: os.chown('.', 0, 0)):\n"
        "    try: call()\n"
        "    except PermissionError: continue\n"
        "    raise SystemExit('gained something')\n"
        "status = dict(line.rstrip('\\n').split(':\\t', 1) for line in open('/proc/self/status') if ':\\t' in line)\n"
        "print(status['NoNewPrivs'], {status[name] for name in ('CapPrm', 'CapEff', 'CapAmb')})",
        "python",
    )
    assert ran.code == 0, ran.err
    assert ran.out == "1 {'0000000000000000'}\n"


async def test_setuid_programs_give_no_root(bench: Bench) -> None:
    ran = await bench.run("cp /bin/sh mine; chmod u+s mine; for p in ./mine /bin/su /bin/mount; do $p -c 'id -u'; done")
    assert "0" not in ran.out.split()


@pytest.mark.parametrize("flags", ["-U", "-Ur", "-Urm", "-Urn"])
async def test_a_program_cannot_create_a_user_namespace(bench: Bench, flags: str) -> None:
    ran = await bench.run(f"unshare {flags} sh -c 'echo made; id -u'")
    assert ran.code != 0
    assert "made" not in ran.out


async def test_the_terminal_of_the_worker_is_unreachable(bench: Bench) -> None:
    ran = await bench.run("echo x > /dev/tty && echo reached")
    assert "reached" not in ran.out


async def test_the_scratch_folder_is_closed_to_other_users(bench: Bench) -> None:
    await bench.run("true")
    for folder in (bench.root, *(path for path in bench.root.rglob("*") if path.is_dir())):
        assert folder.stat().st_mode & 0o077 == 0, folder


@pytest.mark.parametrize("run_id", ["", ".", "..", "../up", "a/b", "/etc", "a\0b", "x" * 129])
async def test_a_run_id_with_a_path_is_refused(bench: Bench, run_id: str) -> None:
    with pytest.raises(ValueError):
        await bench.run("true", run_id=run_id)
    with pytest.raises(ValueError):
        await bench.executor.release(run_id)


@pytest.mark.parametrize("call", ["", "../up", "a/b", "/etc/x", "a\0b"])
async def test_a_call_name_with_a_path_is_refused(bench: Bench, call: str) -> None:
    with pytest.raises(ValueError):
        await bench.run("true", call=call)


def test_files_of_an_earlier_worker_are_removed(tmp_path: Path) -> None:
    left = tmp_path / "scratch" / "run-old" / "workspace"
    left.mkdir(parents=True)
    (left / "file").write_text("secret of another run")
    executor = LocalExecutor(ScratchRoot(tmp_path / "scratch"))
    assert scratch_content(tmp_path / "scratch") == []
    executor.close()
