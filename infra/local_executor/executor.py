"""The executor of a worker without a cluster: bubblewrap on its own host."""

import asyncio
import logging
import os
import secrets
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from infra.contract.errors import ContractError, ExecutorUnavailable, HostExhausted
from infra.contract.execution import Command, Execution, OnLine
from infra.contract.files import DirectoryFiles, FileChanges
from infra.host_limits import exhaustion_in, translate_exhaustion
from infra.local_executor import guard, sandbox, seccomp
from infra.local_executor.child import Child, start, surely
from infra.local_executor.output import Capture
from infra.local_executor.run_dirs import Folders, checked, give, remove
from infra.local_executor.scratch_root import Home, remove_abandoned
from infra.logging import log


class LocalExecutor:
    """Implements the port `Executor`. `root` is a scratch directory of this worker alone, emptied when it starts.

    Those beside it whose workers are gone are removed then. Raises ExecutorUnavailable if `root` cannot be had.
    `unsafe` is for development only: programs run without a sandbox, with the worker's own rights.
    """

    def __init__(self, root: Path, *, unsafe: bool = False) -> None:
        self._root = root
        self._unsafe = unsafe
        remove_abandoned(root.parent, but=root.name)
        try:
            self._home = Home(root)
        except OSError as exc:
            raise ExecutorUnavailable(f"the scratch folder '{root}' cannot be emptied: {exc.strerror}") from exc

    async def check(self) -> None:
        """Run a program in a sandbox.

        Raises ExecutorUnavailable, saying what to install or to allow, and HostExhausted.
        """
        folders = Folders(self._root / f"check-{secrets.token_hex(8)}")
        with translate_exhaustion():
            try:
                folders.make()
                ended = await self._run(Command("check", "check", "sh", "true", timeout_s=10), folders, _ignore)
            finally:
                remove(folders.run)
        if ended.timed_out or ended.exit_code != 0:
            raise ExecutorUnavailable("a program that does nothing did not succeed in the sandbox")

    async def execute(self, command: Command, files: DirectoryFiles, on_line: OnLine) -> Execution:
        """See the port. What a killed or failed program has written is stored too; after a cancel nothing is."""
        folders = self._folders(command.run_id)
        checked(command.call, "name of a call")
        with translate_exhaustion():
            folders.make()
            await files.materialise(folders.workspace)
            began = asyncio.get_running_loop().time()
            ended = await self._run_or_blame(command, folders, files, on_line)
            duration_ms = int((asyncio.get_running_loop().time() - began) * 1000)
            changes: FileChanges = await files.store_changes(folders.workspace)
        return Execution(
            exit_code=None if ended.timed_out else ended.exit_code,
            timed_out=ended.timed_out,
            duration_ms=duration_ms,
            stdout=ended.stdout.path,
            stderr=ended.stderr.path,
            stdout_bytes=ended.stdout.total_bytes,
            stderr_bytes=ended.stderr.total_bytes,
            changes=changes,
        )

    async def release(self, run_id: str) -> None:
        """Remove the run's scratch space, which one that executed nothing has not."""
        folder = self._folders(run_id).run
        if os.path.lexists(folder):
            await surely(asyncio.to_thread(remove, folder))

    def close(self) -> None:
        """Remove the scratch directory, when all runs have been released; without this the next worker does."""
        self._home.leave()

    def _folders(self, run_id: str) -> Folders:
        return Folders(self._root / checked(run_id, "run id"))

    async def _run_or_blame(
        self, command: Command, folders: Folders, files: DirectoryFiles, on_line: OnLine
    ) -> "Ended":
        """Run it. Raises LimitExceeded, not HostExhausted, if the host is short because this very run took too much."""
        try:
            with translate_exhaustion():
                return await self._run(command, folders, on_line)
        except HostExhausted:
            await files.check(folders.workspace)
            raise

    async def _run(self, command: Command, folders: Folders, on_line: OnLine) -> "Ended":
        stdout = Capture(folders.output / f"{command.call}.stdout", command.limits.output_bytes)
        stderr = Capture(folders.output / f"{command.call}.stderr", command.limits.output_bytes)
        child = await self._start(command, folders)
        work: list[asyncio.Future[Any]] = []
        try:
            await surely(child.connect())  # half connected, uvloop and the pipe would each close the same descriptor
            work = [
                asyncio.ensure_future(child.ended(command.timeout_s)),
                asyncio.ensure_future(stdout.pump(child.stdout, partial(on_line, "stdout"))),
                asyncio.ensure_future(stderr.pump(child.stderr, partial(on_line, "stderr"))),
            ]
            timed_out, *_ = await asyncio.gather(*work)
        finally:
            for task in work:
                task.cancel()
            try:
                await child.kill()
            finally:
                child.close()
                await surely(_settled(work))
        if not child.began:
            raise _unbuilt(stderr.path.read_text(errors="replace").strip(), child.exit_code)
        return Ended(child.exit_code, timed_out, stdout, stderr)

    async def _start(self, command: Command, folders: Folders) -> Child:
        if self._unsafe:
            return self._start_unsafe(command, folders)
        host = sandbox.Host(sandbox.find_bwrap(), sandbox.python_home(), root=os.geteuid() == 0)
        if host.root:
            uid = sandbox.uid_of(command.run_id)
            try:
                await surely(asyncio.to_thread(give, folders.workspace, uid))
            except PermissionError as exc:
                raise ExecutorUnavailable("the worker is root without CAP_CHOWN; start it as another user") from exc
        with ExitStack() as closed:
            source_fd = _held(closed, command.source.encode())
            filter_fd = _held(closed, seccomp.program())
            arguments = sandbox.arguments(host, folders.workspace, source_fd, filter_fd)
            args_fd = _held(closed, b"".join(os.fsencode(part) + b"\0" for part in arguments))

            def command_line(lifeline_fd: int, ready_fd: int) -> list[str]:
                sandboxed = sandbox.sandboxed(host, command, args_fd, ready_fd)
                return self._guarded(host.python_home, lifeline_fd, command, sandboxed)

            return start(command_line, {}, pass_fds=(self._home.lock_fd, source_fd, filter_fd, args_fd), cwd="/")

    def _start_unsafe(self, command: Command, folders: Folders) -> Child:
        log("tool.unsandboxed", level=logging.WARNING, run_id=command.run_id, call=command.call)
        program = folders.output / f"{command.call}.program"
        program.write_text(command.source)
        python = sandbox.python_home()
        home = str(folders.workspace)

        def command_line(lifeline_fd: int, ready_fd: int) -> list[str]:
            launched = sandbox.launched(python, 0, ready_fd, command, str(program), count_processes=False)
            return self._guarded(python, lifeline_fd, command, launched)

        return start(command_line, sandbox.environment(home, python), pass_fds=(self._home.lock_fd,), cwd=home)

    def _guarded(self, python: Path, lifeline_fd: int, command: Command, argv: list[str]) -> list[str]:
        return sandbox.guarded(python, lifeline_fd, self._home.lock_fd, command.limits.memory_bytes, argv)


@dataclass(frozen=True)
class Ended:
    """A program that has ended, and what it printed."""

    exit_code: int | None
    timed_out: bool
    stdout: Capture
    stderr: Capture


def _unbuilt(said: str, exit_code: int | None) -> ContractError:
    """Why a program was not begun: the host cannot isolate, or is short of something just now."""
    if exit_code == guard.KILLED:
        return HostExhausted("the sandbox was killed before it stood: the worker's host is short of memory, or of time")
    unavailable = f"the sandbox could not be built: {said or 'no reason given'}; {sandbox.HINT}"
    return exhaustion_in(said) or ExecutorUnavailable(unavailable)


async def _ignore(stream: str, line: str, more: bool) -> None:
    return


async def _settled(work: "list[asyncio.Future[Any]]") -> None:
    await asyncio.gather(*work, return_exceptions=True)


def _held(closed: ExitStack, content: bytes) -> int:
    """A descriptor from which the content can be read; it has no name, and ends with the stack."""
    fd = os.memfd_create("content")
    closed.callback(os.close, fd)
    with open(fd, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
