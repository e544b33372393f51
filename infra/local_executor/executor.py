"""Executor on the worker's own host: runs programs in a bubblewrap sandbox."""

import asyncio
import logging
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.contract.errors import ContractError, ExecutorUnavailable, HostExhausted
from infra.contract.execution import Command, Execution, ExecutionCaller, LinePart, NetworkUse, OnLine
from infra.contract.files import DirectoryFiles, FileChanges
from infra.contract.lending import OpenExecution
from infra.folders import remove_tree
from infra.host_limits import exhaustion_in, translate_exhaustion
from infra.local_executor import guard, interpreters, machine, sandbox
from infra.local_executor.guarded_program import GuardedProgram, shield_until_done, start
from infra.local_executor.output import OutputCapture, Pace
from infra.local_executor.run_dirs import RunDirs, require_safe_name
from infra.local_executor.sandboxed_start import start_sandboxed
from infra.local_executor.session import LocalSession
from infra.logging import log
from infra.scratch_root import ScratchRoot

if TYPE_CHECKING:  # a worker without a network for programs does not pay for the import
    from infra.egress.local import LocalEgress, ProgramProxy

LAST_OUTPUT_S = 0.2
"""Time for logging the last output of a cancelled program. The log waits while Redis is slow, and a cancel must not."""


class LocalExecutor:
    """Implements the port `Executor`.

    `scratch` is the locked scratch folder of this worker.
    `network` serves programs with a network. `unsafe` is for development only: programs run without a sandbox, with the
    worker's permissions and network.
    """

    def __init__(self, scratch: ScratchRoot, *, network: "LocalEgress | None" = None, unsafe: bool = False) -> None:
        self._scratch = scratch
        self._root = scratch.folder
        self._network = network
        self._unsafe = unsafe
        self._sessions: dict[str, LocalSession] = {}

    async def check(self) -> None:
        """Run `true` in a sandbox.

        Raises ExecutorUnavailable, whose message names what to install or to allow, and HostExhausted.
        """
        dirs = RunDirs(self._root / f"check-{secrets.token_hex(8)}")
        with _on_scratch(dirs), translate_exhaustion():
            self._scratch.restore()
            try:
                dirs.make()
                result = await self._run(Command("check", "check", "sh", "true", timeout_s=10), dirs, _ignore)
            finally:
                remove_tree(dirs.root)
        if result.timed_out or result.exit_code != 0:
            raise ExecutorUnavailable(
                "the program `true` failed or timed out in the sandbox; docs/sandbox.md lists what the host must allow"
            )

    async def execute(
        self, command: Command, files: DirectoryFiles, on_line: OnLine, caller: ExecutionCaller | None = None
    ) -> Execution:
        """See the port. Stores the changes of a killed or failed program too, but none after a cancellation.

        Has no use for a caller, because its programs end with the worker.
        """
        dirs = self._run_dirs(command.run_id)
        require_safe_name(command.call, "name of a call")
        with _on_scratch(dirs), translate_exhaustion():
            dirs.make()
            await files.materialise(dirs.workspace)
            result = await self._run_within_limits(command, dirs, files, on_line)
            # Without its workspace, the run would seem to have deleted all of its files.
            dirs.require_usable()
            changes: FileChanges = await files.store_changes(dirs.workspace)
        return Execution(
            exit_code=None if result.timed_out else result.exit_code,
            timed_out=result.timed_out,
            duration_ms=result.duration_ms,
            stdout=result.stdout.path,
            stderr=result.stderr.path,
            stdout_bytes=result.stdout.total_bytes,
            stderr_bytes=result.stderr.total_bytes,
            changes=changes,
            network=result.network,
        )

    async def adopt(
        self, command: Command, begun: OpenExecution, files: DirectoryFiles, on_line: OnLine, caller: ExecutionCaller
    ) -> Execution | None:
        """Return None: programs of this executor end with their worker."""
        return None

    async def discard(self, run_id: str, begun: OpenExecution) -> None:
        """Do nothing: it is an execution of another executor, which removes the execution itself."""

    def end_unowned(self, run_id: str | None) -> None:
        """Do nothing: programs of this executor end with their worker."""

    async def open(self, command: Command, max_reply_bytes: int, fence: int) -> LocalSession:
        """See the port. A run has one session at a time: an earlier one is closed.

        Has no use for the fence, because its programs end with the worker.
        """
        if self._unsafe:
            raise ExecutorUnavailable("this worker runs programs without a sandbox, and keeps no session open there")
        require_safe_name(command.run_id, "run id")
        if earlier := self._sessions.pop(command.run_id, None):
            await earlier.close()
        with translate_exhaustion():
            program, proxy = await start_sandboxed(
                command, None, interpreters.SESSION_SCRIPT, self._scratch.lock_fd, self._network
            )
            session = LocalSession(program, proxy, command.timeout_s, max_reply_bytes)
            self._sessions[command.run_id] = session
            try:
                await session.begin()
            except BaseException:
                await session.close()
                raise
        if not program.started:
            raise _start_error(session.errors, program.exit_code)
        return session

    async def release(self, run_id: str) -> None:
        """Close the run's session, and remove its scratch directories, if it executed anything."""
        if session := self._sessions.pop(run_id, None):
            await session.close()
        root = self._run_dirs(run_id).root
        if os.path.lexists(root):
            await shield_until_done(asyncio.to_thread(remove_tree, root))

    def close(self) -> None:
        """Remove the scratch folder. All runs must have been released. If not called, another worker removes it."""
        self._scratch.remove()

    def _run_dirs(self, run_id: str) -> RunDirs:
        return RunDirs(self._root / require_safe_name(run_id, "run id"))

    async def _run_within_limits(
        self, command: Command, dirs: RunDirs, files: DirectoryFiles, on_line: OnLine
    ) -> "ProgramResult":
        """Run the command. Raises LimitExceeded instead of HostExhausted if the run's own files filled the disk."""
        try:
            with translate_exhaustion():
                return await self._run(command, dirs, on_line)
        except HostExhausted:
            await files.check(dirs.workspace)
            raise

    async def _run(self, command: Command, dirs: RunDirs, on_line: OnLine) -> "ProgramResult":
        pace, clock = Pace(), asyncio.get_running_loop().time
        started_s = dead_s = clock()
        stdout = OutputCapture(dirs.output / f"{command.call}.stdout", command.limits.output_bytes, pace)
        stderr = OutputCapture(dirs.output / f"{command.call}.stderr", command.limits.output_bytes, pace)
        script_name = interpreters.script_name(command, dirs.workspace)
        program, proxy = await self._start(command, dirs, script_name)
        tasks: list[asyncio.Future[Any]] = []

        def program_ended(_: object) -> None:
            nonlocal dead_s
            pace.end()
            # The log may take longer than the program.
            dead_s = clock()

        try:
            # Shielded: after a cancellation between the two pipes, uvloop and the pipe object would both close the
            # same descriptor.
            await shield_until_done(program.connect())
            running = asyncio.ensure_future(program.wait(command.timeout_s))
            running.add_done_callback(program_ended)
            tasks = [
                running,
                asyncio.ensure_future(stdout.read_all(program.stdout, partial(on_line, "stdout"))),
                asyncio.ensure_future(stderr.read_all(program.stderr, partial(on_line, "stderr"))),
            ]
            # Unlike `gather`, which would cancel them, this leaves the tasks to read on after a cancellation.
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in ended:
                task.result()
            timed_out = running.result()
        finally:
            try:
                await program.kill()
            finally:
                await shield_until_done(_end(tasks, program, proxy))
                _remove_fifo(dirs.workspace / script_name)
        if not program.started:
            raise _start_error(stderr.path.read_text(errors="replace").strip(), program.exit_code)
        use = proxy.call.use() if proxy else None
        duration_ms = int((dead_s - started_s) * 1000)
        return ProgramResult(program.exit_code, timed_out, duration_ms, stdout, stderr, use)

    async def _start(
        self, command: Command, dirs: RunDirs, script_name: str
    ) -> "tuple[GuardedProgram, ProgramProxy | None]":
        if self._unsafe:
            return self._start_unsafe(command, dirs, script_name), None
        return await start_sandboxed(command, dirs.workspace, script_name, self._scratch.lock_fd, self._network)

    def _start_unsafe(self, command: Command, dirs: RunDirs, script_name: str) -> GuardedProgram:
        log("tool.unsandboxed", level=logging.WARNING, run_id=command.run_id, call=command.call)
        folder = dirs.output / f"{command.call}.program"
        folder.mkdir(exist_ok=True)
        path = f"{dirs.workspace}/{script_name}"
        script = interpreters.script(command, sandbox.interpreter(command), str(folder), path)
        for name, text in script.files.items():
            Path(name).write_text(text)
        python = sandbox.python_home()
        home = str(dirs.workspace)

        def command_line(lifeline_fd: int, ready_fd: int) -> list[str]:
            launched = sandbox.launched(python, 0, ready_fd, command, script, count_processes=False)
            memory_bytes = command.limits.memory_bytes
            lock_fd, workspace = self._scratch.lock_fd, dirs.workspace
            return sandbox.guarded(
                python, lifeline_fd, lock_fd, memory_bytes, launched, tmp_files=0, workspace=workspace
            )

        variables = machine.environment(home, python, command.limits)
        return start(command_line, variables, pass_fds=(self._scratch.lock_fd,), cwd=home)


@dataclass(frozen=True)
class ProgramResult:
    """Result and output of a program that has ended."""

    exit_code: int | None
    timed_out: bool
    duration_ms: int
    stdout: OutputCapture
    stderr: OutputCapture
    network: NetworkUse | None


@contextmanager
def _on_scratch(dirs: RunDirs) -> Iterator[None]:
    """Raise ExecutorUnavailable for an error of a run whose directories somebody has removed, or made read-only.

    Another worker can do the run; this one would fail it, and every further one.
    """
    try:
        yield
    except OSError:
        dirs.require_usable()
        raise


def _start_error(stderr: str, exit_code: int | None) -> ContractError:
    """Return why the program was not started: the host cannot isolate programs, or its resources are exhausted."""
    # Before the program starts only the kernel (out of memory) or the start timeout kills the sandbox.
    if exit_code == guard.KILLED:
        return HostExhausted(
            "the sandbox was killed while it started: the worker's host is short of memory or too slow"
        )
    unavailable = f"the sandbox could not be built: {stderr or 'no reason given'}; {sandbox.HINT}"
    return exhaustion_in(stderr) or ExecutorUnavailable(unavailable)


def _remove_fifo(path: Path) -> None:
    """Remove the FIFO of a script that its interpreter has not opened, because it could not be started."""
    with suppress(OSError):
        if stat.S_ISFIFO(path.lstat().st_mode):
            path.unlink()


async def _ignore(_stream: str, _part: LinePart) -> bool:
    return False


async def _end(tasks: list[asyncio.Future[Any]], program: GuardedProgram, proxy: "ProgramProxy | None") -> None:
    """Pass on the last output of a program that is dead, also of one that was cancelled, and close what it has used."""
    if tasks:
        await asyncio.wait(tasks, timeout=LAST_OUTPUT_S)
    for task in tasks:
        task.cancel()
    program.close()
    await asyncio.gather(*tasks, return_exceptions=True)
    if proxy:
        await proxy.close()
