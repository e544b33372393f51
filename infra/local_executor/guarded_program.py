"""Start, await and kill a program together with all processes that it starts.

Does not use asyncio's subprocesses: their `wait` returns only at the end of the pipes, and a slow reader of the output
can delay that without limit.
"""

import asyncio
import os
import subprocess
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import IO, Any

from infra.contract.errors import ExecutorUnavailable

START_TIMEOUT_S = 60
"""Time for a sandbox to be set up. A busy host needs seconds; after a minute the sandbox is stuck."""

END_TIMEOUT_S = 1
"""Time for a sandbox that could not be set up to end by itself."""


class GuardedProgram:
    """Program below its guard process (see guard.py). Once the guard has ended, the whole process tree is dead.

    The lifeline is a pipe from this process to the guard. The guard ends when the program ends or the lifeline is
    closed. `started` is False until the sandbox is set up.
    """

    def __init__(
        self,
        guard: "subprocess.Popen[bytes]",
        guard_fd: int,
        lifeline_fd: int,
        ready_fd: int,
        outputs: Sequence[IO[bytes]],
        input_pipe: IO[bytes] | None = None,
    ) -> None:
        self.stdout = asyncio.StreamReader()
        self.stderr = asyncio.StreamReader()
        self.started = False
        self._guard = guard
        self._guard_fd = guard_fd
        self._tree_dead = asyncio.Event()
        self._lifeline_fd: int | None = lifeline_fd
        self._ready_fd: int | None = ready_fd
        self._outputs = outputs
        self._input_pipe = input_pipe
        self._input: asyncio.WriteTransport | None = None
        self._pipes: list[asyncio.BaseTransport] = []
        asyncio.get_running_loop().add_reader(guard_fd, self._reap)

    @property
    def exit_code(self) -> int | None:
        """Exit code as in a shell: 128 + n if signal n ended the program. None while it runs."""
        code = self._guard.returncode
        return 128 - code if code is not None and code < 0 else code

    async def connect(self) -> None:
        """Connect stdout and stderr of the program to the stream readers, and its stdin if it has one."""
        for pipe, reader in zip(self._outputs, (self.stdout, self.stderr), strict=True):
            self._pipes.append(await _connect(pipe, reader))
        if self._input_pipe is not None:
            loop = asyncio.get_running_loop()
            self._input, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, self._input_pipe)

    def write(self, data: bytes) -> None:
        """Write to stdin of the program, which must be connected. If the program has ended, nothing happens."""
        if self._input is not None and not self._input.is_closing():
            self._input.write(data)

    async def wait_for_start(self) -> None:
        """Wait until the sandbox is set up; `started` stays False if that fails or takes more than START_TIMEOUT_S."""
        if self._ready_fd is not None and not self.started:
            with suppress(TimeoutError):
                async with asyncio.timeout(START_TIMEOUT_S):
                    await _readable(self._ready_fd)
                    # The launcher writes one byte. An empty read means that the sandbox ended without starting it.
                    self.started = bool(os.read(self._ready_fd, 1))
            if not self.started:
                # The launcher or bwrap has failed and is ending. To kill it meanwhile would hide its exit code.
                with suppress(TimeoutError):
                    async with asyncio.timeout(END_TIMEOUT_S):
                        await self._tree_dead.wait()
                await self.kill()

    async def wait(self, timeout_s: float) -> bool:
        """Wait until the whole process tree is dead; kill it `timeout_s` after its start and return True then.

        Returns at once if the sandbox could not be set up.
        """
        await self.wait_for_start()
        timed_out = False
        try:
            async with asyncio.timeout(timeout_s):
                await self._tree_dead.wait()
        except TimeoutError:
            timed_out = True
        await self.kill()
        return timed_out

    async def kill(self) -> None:
        """Kill the process tree and return when it is dead, even if cancelled. Can be called repeatedly."""
        await shield_until_done(self._kill())

    def close(self) -> None:
        """Close all descriptors. The process tree must be dead."""
        if self._ready_fd is not None:
            os.close(self._ready_fd)
            self._ready_fd = None
        for pipe in self._pipes:
            pipe.close()
        for unconnected in self._outputs[len(self._pipes) :]:
            unconnected.close()
        if self._input is None:
            if self._input_pipe is not None:
                self._input_pipe.close()
        elif not self._input.is_closing():
            self._input.abort()

    async def _kill(self) -> None:
        if self._lifeline_fd is not None:
            os.close(self._lifeline_fd)
            self._lifeline_fd = None
        await self._tree_dead.wait()

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._guard_fd)
        os.close(self._guard_fd)
        self._guard.wait()
        self._tree_dead.set()


def start(
    command_line: Callable[[int, int], Sequence[str]],
    environment: Mapping[str, str],
    *,
    pass_fds: Sequence[int],
    cwd: str,
    owner: int | None = None,
    with_input: bool = False,
) -> GuardedProgram:
    """Start a guard in a new session; it inherits `pass_fds`. The pipes of its output get the uid `owner`.

    Without `with_input` the program reads an empty stdin.
    `command_line` takes two descriptors and returns the guard's command: the guard's end of the lifeline, and the pipe
    to which the launcher writes one byte once the sandbox is set up.
    Raises ExecutorUnavailable, and OSError if the host's resources are exhausted.
    """
    with ExitStack() as close_on_error:
        lifeline_theirs, lifeline_ours = _pipe(close_on_error)
        ready_ours, ready_theirs = _pipe(close_on_error)
        outputs = [_pipe(close_on_error) for _ in ("stdout", "stderr")]
        input_theirs, input_ours = _pipe(close_on_error) if with_input else (subprocess.DEVNULL, None)
        if owner is not None:
            # Otherwise the program could write to the pipes, but not open them again as /dev/stdout and /dev/stderr.
            for _, writing in outputs:
                os.fchown(writing, owner, owner)
        try:
            guard = subprocess.Popen(
                command_line(lifeline_theirs, ready_theirs),
                stdin=input_theirs,
                stdout=outputs[0][1],
                stderr=outputs[1][1],
                env=environment,
                pass_fds=(*pass_fds, lifeline_theirs, ready_theirs),
                cwd=cwd,
                start_new_session=True,
            )
        except (FileNotFoundError, PermissionError) as exc:
            raise ExecutorUnavailable(f"{exc.filename or 'a program'} could not be started: {exc.strerror}") from exc
        guard_fd = os.pidfd_open(guard.pid)
        close_on_error.callback(os.close, guard_fd)
        pipes = [open(reading, "rb", buffering=0) for reading, _ in outputs]  # noqa: PTH123, SIM115
        input_pipe = None if input_ours is None else open(input_ours, "wb", buffering=0)  # noqa: PTH123, SIM115
        program = GuardedProgram(guard, guard_fd, lifeline_ours, ready_ours, pipes, input_pipe)
        close_on_error.pop_all()
    for _, writing in outputs:
        os.close(writing)
    if with_input:
        os.close(input_theirs)
    os.close(lifeline_theirs)
    os.close(ready_theirs)
    return program


async def shield_until_done(work: Coroutine[Any, Any, None]) -> None:
    """Finish the work even if the caller is cancelled meanwhile, then raise its error or CancelledError."""
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            cancelled = True
    task.result()
    if cancelled:
        raise asyncio.CancelledError


def _pipe(close_on_error: ExitStack) -> tuple[int, int]:
    reading, writing = os.pipe()
    close_on_error.callback(os.close, reading)
    close_on_error.callback(os.close, writing)
    return reading, writing


async def _connect(pipe: IO[bytes], reader: asyncio.StreamReader) -> asyncio.BaseTransport:
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, pipe)
    return transport


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(fd)
