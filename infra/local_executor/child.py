"""A child process and its whole tree: started, awaited, killed.

Not asyncio's own subprocesses: their `wait` returns only when the pipes are at their end, which a slow reader or a
stray grandchild can put off for ever.
"""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import IO, Any

from infra.contract.errors import ExecutorUnavailable

STRAY_S = 0.05


class Child:
    """A started program.

    In the sandbox `tree_fd` refers to the first process of a pid namespace: when that one is dead, the kernel has
    killed all others in it before. Without a sandbox (None) the process group stands in for the tree.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", tree_fd: int | None) -> None:
        self.stdout = asyncio.StreamReader()
        self.stderr = asyncio.StreamReader()
        self._process = process
        self._tree_fd = tree_fd
        self._main_fd = os.pidfd_open(process.pid)
        self._pipes: list[asyncio.BaseTransport] = []
        self._killing = asyncio.Lock()
        self._dead = False

    @property
    def exit_code(self) -> int | None:
        """The exit code; 128 + n if signal n ended the program, as shells say it. None while it runs."""
        code = self._process.returncode
        return 128 - code if code is not None and code < 0 else code

    async def connect(self) -> None:
        """Begin to read the pipes."""
        for pipe, reader in ((self._process.stdout, self.stdout), (self._process.stderr, self.stderr)):
            self._pipes.append(await _connect(pipe, reader))

    async def ended(self, timeout_s: float) -> bool:
        """Wait for the end of the program, killing it after `timeout_s`, and make sure of the end of its whole tree.

        Answers whether it had to be killed.
        """
        timed_out = False
        try:
            async with asyncio.timeout(timeout_s):
                await _readable(self._main_fd)
        except TimeoutError:
            timed_out = True
        await self.kill()
        return timed_out

    async def kill(self) -> None:
        """Kill what still lives; return when the whole tree is dead. May be called again."""
        await surely(self._kill())

    def close(self) -> None:
        """Let go of the pipes."""
        for pipe in self._pipes:
            pipe.close()

    async def _kill(self) -> None:
        async with self._killing:
            if self._dead:
                return
            if self._tree_fd is None:
                self._kill_group()
            else:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._tree_fd, signal.SIGKILL)
                await _readable(self._tree_fd)
                os.close(self._tree_fd)
            await _readable(self._main_fd)
            os.close(self._main_fd)
            self._process.wait()
            self._dead = True
            if self._tree_fd is None:
                # A process that left the group may hold the pipes open; what has been printed is read, no more.
                await asyncio.sleep(STRAY_S)
                self.close()

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


async def start(
    argv: Sequence[str], environment: Mapping[str, str], *, pass_fds: Sequence[int], info_fd: int | None, cwd: str
) -> Child:
    """Start a program in a session of its own; `pass_fds` go to it and are closed here.

    `info_fd` is the reading end of the pipe on which bwrap tells the pid of the sandbox; it is read to its end. Raises
    ExecutorUnavailable if bwrap could not build the sandbox.
    """
    try:
        process = subprocess.Popen(  # noqa: ASYNC220
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            pass_fds=pass_fds,
            cwd=cwd,
            start_new_session=True,
        )
    finally:
        for fd in pass_fds:
            os.close(fd)
    child = Child(process, await _tree(process, info_fd))
    await child.connect()
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


async def _tree(process: "subprocess.Popen[bytes]", info_fd: int | None) -> int | None:
    if info_fd is None:
        return None
    try:
        return os.pidfd_open(json.loads(await asyncio.to_thread(_read_all, info_fd))["child-pid"])
    except ProcessLookupError:
        return None
    except ValueError:
        _, stderr = await asyncio.to_thread(process.communicate)
        text = stderr.decode(errors="replace").strip()
        raise ExecutorUnavailable(f"bubblewrap could not build the sandbox: {text}") from None


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


def _read_all(fd: int) -> bytes:
    with open(fd, "rb") as pipe:
        return pipe.read()
