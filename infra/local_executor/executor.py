"""The executor of a worker without a cluster: bubblewrap on its own host."""

import asyncio
import logging
import os
import re
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from infra.contract.errors import ExecutorUnavailable
from infra.contract.models import FileChanges
from infra.contract.ports import Command, Execution, OnLine, RunFiles
from infra.local_executor import sandbox
from infra.local_executor.child import Child, start, surely
from infra.local_executor.output import Capture
from infra.logging import log

_SAFE = re.compile(r"[A-Za-z0-9_-]{1,128}")


@dataclass(frozen=True)
class Folders:
    """A run's scratch space on this host."""

    run: Path

    @property
    def workspace(self) -> Path:
        """What the program sees as its working directory."""
        return self.run / "workspace"

    @property
    def output(self) -> Path:
        """Where its output is kept."""
        return self.run / "output"

    def make(self) -> None:
        """Create the folders, closed to other users."""
        for folder in (self.workspace, self.output):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)


class LocalExecutor:
    """Implements the port `Executor`. `root` is a scratch directory of this worker alone, emptied when it starts.

    `unsafe` is for development only: programs run without a sandbox, with the worker's own rights.
    """

    def __init__(self, root: Path, *, unsafe: bool = False) -> None:
        self._root = root
        self._unsafe = unsafe
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def check(self) -> None:
        """Run a program in a sandbox. Raises ExecutorUnavailable, saying what to install or to allow."""
        with tempfile.TemporaryDirectory(dir=self._root) as folder:
            command = Command("check", "check", "sh", "true", timeout_s=10)
            folders = Folders(Path(folder))
            folders.make()
            try:
                ended = await self._run(command, folders, _ignore)
            except PermissionError as exc:
                raise ExecutorUnavailable(f"bwrap may not be executed: {exc.strerror}") from exc
            if ended.exit_code != 0:
                said = ended.stderr.path.read_text(errors="replace").strip()
                hint = "unprivileged user namespaces may be off (sysctl kernel.unprivileged_userns_clone)"
                raise ExecutorUnavailable(f"a sandbox could not be started: {said}; {hint}; {sandbox.INSTALL}")

    async def execute(self, command: Command, files: RunFiles, on_line: OnLine) -> Execution:
        """See the port. What a killed or failed program has written is stored too; after a cancel nothing is."""
        folders = self._folders(command.run_id)
        await asyncio.to_thread(folders.make)
        await files.materialise(folders.workspace)
        began = asyncio.get_running_loop().time()
        ended = await self._run(command, folders, on_line)
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
        """Remove the run's scratch space."""
        await asyncio.to_thread(_remove, self._folders(run_id).run)

    def _folders(self, run_id: str) -> Folders:
        if not _SAFE.fullmatch(run_id):
            raise ValueError(f"not a run id: {run_id!r}")
        return Folders(self._root / run_id)

    async def _run(self, command: Command, folders: Folders, on_line: OnLine) -> "Ended":
        stdout = Capture(folders.output / f"{command.call}.stdout", command.limits.output_bytes)
        stderr = Capture(folders.output / f"{command.call}.stderr", command.limits.output_bytes)
        starting = asyncio.ensure_future(self._start(command, folders))
        try:
            child = await asyncio.shield(starting)
        except asyncio.CancelledError:
            await surely(_undo(starting))
            raise
        tasks = [
            asyncio.ensure_future(stdout.pump(child.stdout, lambda line: on_line("stdout", line))),
            asyncio.ensure_future(stderr.pump(child.stderr, lambda line: on_line("stderr", line))),
        ]
        ending = asyncio.ensure_future(child.ended(command.timeout_s))
        try:
            await asyncio.gather(ending, *tasks)
        finally:
            for task in (ending, *tasks):
                task.cancel()
            await child.kill()
            child.close()
            await asyncio.gather(ending, *tasks, return_exceptions=True)
        return Ended(child.exit_code, ending.result(), stdout, stderr)

    async def _start(self, command: Command, folders: Folders) -> Child:
        if self._unsafe:
            return await self._start_unsafe(command, folders)
        host = sandbox.Host(sandbox.find_bwrap(), sandbox.python_home(), root=os.geteuid() == 0)
        if host.root:
            await asyncio.to_thread(_give, folders.workspace, sandbox.uid_of(command.run_id))
        source_fd = os.memfd_create("program")
        os.write(source_fd, command.source.encode())
        os.lseek(source_fd, 0, os.SEEK_SET)
        info_read, info_write = os.pipe()
        fds = (source_fd, info_write)
        try:
            argv = sandbox.sandboxed(host, command, folders.workspace, *fds)
        except BaseException:
            for fd in (*fds, info_read):
                os.close(fd)
            raise
        return await start(argv, {}, pass_fds=fds, info_fd=info_read, cwd="/")

    async def _start_unsafe(self, command: Command, folders: Folders) -> Child:
        log("tool.unsandboxed", level=logging.WARNING, run_id=command.run_id, call=command.call)
        program = folders.output / f"{command.call}.program"
        program.write_text(command.source)
        python = sandbox.python_home()
        argv = sandbox.launcher(python, 0, command.limits, command.timeout_s, count_processes=False)
        argv += [sandbox.interpreter(command), str(program)]
        home = str(folders.workspace)
        return await start(argv, sandbox.environment(home, python), pass_fds=(), info_fd=None, cwd=home)


@dataclass(frozen=True)
class Ended:
    """A program that has ended, and what it printed."""

    exit_code: int | None
    timed_out: bool
    stdout: Capture
    stderr: Capture


async def _ignore(stream: str, line: str) -> None:
    return


async def _undo(starting: "asyncio.Future[Child]") -> None:
    with suppress(ExecutorUnavailable):
        await (await starting).kill()


def _give(folder: Path, uid: int) -> None:
    """Make the sandbox's uid the owner of all below the folder; links are not followed."""
    os.chown(folder, uid, uid)
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            os.chown(Path(parent, name), uid, uid, follow_symlinks=False)


def _remove(folder: Path) -> None:
    """Remove a folder with all that a program left in it, also where it took its own rights away."""

    def allow_and_retry(function: object, path: str, _error: object) -> None:
        with suppress(OSError):
            Path(path).parent.chmod(0o700)
            if not Path(path).is_symlink():
                Path(path).chmod(0o700)
            shutil.rmtree(path) if Path(path).is_dir() else Path(path).unlink()

    shutil.rmtree(folder, onerror=allow_and_retry)
