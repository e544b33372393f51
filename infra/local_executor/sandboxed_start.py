"""Start of a program in a sandbox: its files, its network, its command line."""

import asyncio
import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from infra.contract.errors import ExecutorUnavailable
from infra.contract.execution import Command
from infra.local_executor import interpreters, machine, sandbox, seccomp
from infra.local_executor.guarded_program import GuardedProgram, shield_until_done, start
from infra.local_executor.run_dirs import chown_tree

if TYPE_CHECKING:  # a worker without a network for programs does not pay for the import
    from infra.egress.local import LocalEgress, ProgramProxy


async def start_sandboxed(
    command: Command, workspace: Path | None, script_name: str, lock_fd: int, network: "LocalEgress | None"
) -> "tuple[GuardedProgram, ProgramProxy | None]":
    """Start the command in a sandbox; without a workspace, as a session that reads requests from stdin.

    The script gets the name `script_name` in the program's home. `lock_fd`: lock of the scratch folder. Raises
    ExecutorUnavailable, OSError.
    """
    host = sandbox.Host(sandbox.find_bwrap(), sandbox.python_home(), root=os.geteuid() == 0)
    uid, gid = os.geteuid(), os.getegid()
    if host.root:
        uid = gid = sandbox.uid_of(command.run_id)
        if workspace is not None:
            await _give(workspace, uid)
    home = sandbox.SESSION_HOME if workspace is None else sandbox.WORKSPACE
    with ExitStack() as on_error, ExitStack() as close_fds:
        path = f"{home}/{script_name}"
        script = interpreters.script(command, sandbox.interpreter(command), sandbox.PROGRAM, path)
        etc = {**machine.etc_files(uid, gid, home), **command.etc}
        made = {f"/etc/{name}": text for name, text in etc.items()}
        made |= {**script.files, sandbox.LAUNCHER_FILE: sandbox.LAUNCHER}
        files = {name: _memory_file(close_fds, text.encode()) for name, text in made.items()}
        filter_fd = _memory_file(close_fds, seccomp.program())
        proxy = _proxy(command, network, on_error)
        variables = machine.environment(home, host.python_home, command.limits)
        variables["PATH"] += f":{sandbox.NAMES}"
        variables |= machine.proxy_environment(sandbox.PROXY_URL) if proxy else machine.OFFLINE
        network_fd = proxy.theirs.fileno() if proxy else 0
        arguments = sandbox.arguments(host, workspace, files, filter_fd, variables, command.mounts)
        args_fd = _memory_file(close_fds, b"".join(os.fsencode(part) + b"\0" for part in arguments))

        def command_line(lifeline_fd: int, ready_fd: int) -> list[str]:
            sandboxed = sandbox.sandboxed(host, command, script, args_fd, ready_fd, network_fd)
            memory_bytes, tmp_files = command.limits.memory_bytes, sandbox.TMP_FILES
            return sandbox.guarded(
                host.python_home,
                lifeline_fd,
                lock_fd,
                memory_bytes,
                sandboxed,
                tmp_files=tmp_files,
                workspace=workspace,
            )

        pass_fds = (lock_fd, *files.values(), filter_fd, args_fd, *([network_fd] if proxy else []))
        owner = uid if host.root else None
        program = start(command_line, {}, pass_fds=pass_fds, cwd="/", owner=owner, with_input=workspace is None)
        on_error.pop_all()
    if proxy:
        proxy.serve()
    return program, proxy


def _proxy(command: Command, network: "LocalEgress | None", close_on_error: ExitStack) -> "ProgramProxy | None":
    """Return the proxy of a command with a network. Raises ExecutorUnavailable, OSError."""
    if not command.network:
        return None
    if network is None:
        raise ExecutorUnavailable("the program needs a network, and this worker has none for programs")
    proxy = network.open(command)
    close_on_error.callback(proxy.discard)
    return proxy


async def _give(workspace: Path, uid: int) -> None:
    """Make the user of the run's programs the owner of its workspace. Raises ExecutorUnavailable."""
    try:
        await shield_until_done(asyncio.to_thread(chown_tree, workspace, uid))
    except PermissionError as exc:
        raise ExecutorUnavailable("the worker is root without CAP_CHOWN; start it as another user") from exc


def _memory_file(close_fds: ExitStack, content: bytes) -> int:
    """Return a descriptor of a memory file with the content. `close_fds` closes it."""
    fd = os.memfd_create("content")
    close_fds.callback(os.close, fd)
    with open(fd, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
