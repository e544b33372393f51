"""A program and its whole tree: started, awaited, killed.

Not asyncio's own subprocesses: their `wait` returns only when the pipes are at their end, which a slow reader can put
off for ever.
"""

import asyncio
import os
import subprocess
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import IO, Any

from infra.contract.errors import ExecutorUnavailable

START_S = 60
"""A sandbox that does not stand by then will not."""


class Child:
    """A program below its guard (see guard.py): when the guard has ended, the whole tree is dead.

    The guard lives as long as the program and the lifeline, whose one end is here.
    """

    def __init__(self, guard: "subprocess.Popen[bytes]", guard_fd: int, lifeline_fd: int, ready_fd: int) -> None:
        self.stdout = asyncio.StreamReader()
        self.stderr = asyncio.StreamReader()
        self.began = False
        self._guard = guard
        self._guard_fd = guard_fd
        self._gone = asyncio.Event()
        self._lifeline_fd: int | None = lifeline_fd
        self._ready_fd: int | None = ready_fd
        self._pipes: list[asyncio.BaseTransport] = []
        asyncio.get_running_loop().add_reader(guard_fd, self._reap)

    @property
    def exit_code(self) -> int | None:
        """The exit code; 128 + n if signal n ended the program, as shells say it. None while it runs."""
        code = self._guard.returncode
        return 128 - code if code is not None and code < 0 else code

    async def connect(self) -> None:
        """Begin to read the pipes."""
        for pipe, reader in ((self._guard.stdout, self.stdout), (self._guard.stderr, self.stderr)):
            self._pipes.append(await _connect(pipe, reader))

    async def ended(self, timeout_s: float) -> bool:
        """Wait for the end of the program, killing it `timeout_s` after it began; answers whether it had to be.

        Its whole tree is dead then. `began` stays False if it could not be started, in time.
        """
        if self._ready_fd is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(START_S):
                    await _readable(self._ready_fd)
                    self.began = bool(os.read(self._ready_fd, 1))
            if not self.began:
                await self.kill()
        timed_out = False
        try:
            async with asyncio.timeout(timeout_s):
                await self._gone.wait()
        except TimeoutError:
            timed_out = True
        await self.kill()
        return timed_out

    async def kill(self) -> None:
        """Kill what still lives; return when the whole tree is dead, even if cancelled. May be called again."""
        await surely(self._kill())

    def close(self) -> None:
        """Let go of all descriptors, of a dead program."""
        if self._ready_fd is not None:
            os.close(self._ready_fd)
            self._ready_fd = None
        for pipe in self._pipes:
            pipe.close()
        for unused in (self._guard.stdout, self._guard.stderr)[len(self._pipes) :]:
            if unused:
                unused.close()

    async def _kill(self) -> None:
        if self._lifeline_fd is not None:
            os.close(self._lifeline_fd)
            self._lifeline_fd = None
        await self._gone.wait()

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._guard_fd)
        os.close(self._guard_fd)
        self._guard.wait()
        self._gone.set()


def start(
    command_line: Callable[[int, int], Sequence[str]],
    environment: Mapping[str, str],
    *,
    pass_fds: Sequence[int],
    cwd: str,
) -> Child:
    """Start a guard in a session of its own; `pass_fds` go to it.

    `command_line` is given the descriptors of the lifeline and of the pipe on which a program that begins sends a byte.
    Raises ExecutorUnavailable, and OSError if the host is short of something.
    """
    with ExitStack() as closed_on_error:
        lifeline_theirs, lifeline_ours = _pipe(closed_on_error)
        ready_ours, ready_theirs = _pipe(closed_on_error)
        try:
            guard = subprocess.Popen(
                command_line(lifeline_theirs, ready_theirs),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                pass_fds=(*pass_fds, lifeline_theirs, ready_theirs),
                cwd=cwd,
                start_new_session=True,
            )
        except (FileNotFoundError, PermissionError) as exc:
            raise ExecutorUnavailable(f"{exc.filename or 'a program'} could not be started: {exc.strerror}") from exc
        guard_fd = os.pidfd_open(guard.pid)
        closed_on_error.callback(os.close, guard_fd)
        child = Child(guard, guard_fd, lifeline_ours, ready_ours)
        closed_on_error.pop_all()
    os.close(lifeline_theirs)
    os.close(ready_theirs)
    return child


async def surely(work: Coroutine[Any, Any, None]) -> None:
    """Finish the work even if the caller is cancelled meanwhile; the cancellation then goes on."""
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


def _pipe(closed: ExitStack) -> tuple[int, int]:
    reading, writing = os.pipe()
    closed.callback(os.close, reading)
    closed.callback(os.close, writing)
    return reading, writing


async def _connect(pipe: IO[bytes] | None, reader: asyncio.StreamReader) -> asyncio.BaseTransport:
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
