"""A command on a terminal of a given size, as a person starts it."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

TIMEOUT_S = 100
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class TerminalResult(NamedTuple):
    """Exit code and everything that was written to the terminal, without escape sequences and with plain line ends."""

    code: int
    text: str
    raw: str


def on_terminal(
    command: Sequence[str],
    *,
    columns: int = 80,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    typed: str = "",
    typed_after: str = "",
    replies: Sequence[tuple[str, Callable[[], str]]] = (),
) -> TerminalResult:
    """Run a command on a terminal to its end; `typed` is what the person types, once `typed_after` was shown.

    `replies`: prompts in their order, each with a function that returns what the person types when it is shown.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    given = {name: value for name, value in (env or os.environ).items() if name not in {"COLUMNS", "NO_COLOR"}}
    with subprocess.Popen(
        command,
        cwd=cwd,
        env={**given, "TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=_own_terminal,
    ) as process:
        os.close(theirs)
        raw = _read_all(ours, process, time.monotonic() + TIMEOUT_S, typed, typed_after, list(replies))
        os.close(ours)
        code = process.wait(timeout=10)
    return TerminalResult(code, ESCAPES.sub("", raw).replace("\r\n", "\n"), raw)


def _own_terminal() -> None:
    """Let Ctrl-C on the terminal reach the command."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _read_all(
    terminal: int,
    process: subprocess.Popen[bytes],
    deadline: float,
    typed: str,
    typed_after: str,
    replies: list[tuple[str, Callable[[], str]]],
) -> str:
    read, type_at, replied = bytearray(), 0.0, 0
    while True:
        if replies and (shown := read.find(replies[0][0].encode(), replied)) >= 0:
            replied = shown + len(replies[0][0])
            os.write(terminal, replies.pop(0)[1]().encode())
        if typed and typed_after.encode() in read and time.monotonic() >= type_at:
            os.write(terminal, typed.encode())
            # Ctrl-C just before the command begins to read is lost, so a person types it again.
            type_at = time.monotonic() + 5 if typed_after else float("inf")
        if time.monotonic() > deadline:
            process.kill()
            raise TimeoutError(read.decode(errors="replace"))
        if not select.select([terminal], [], [], 0.1)[0]:
            continue
        try:
            part = os.read(terminal, 65536)
        except OSError:  # the other end is closed
            part = b""
        if not part:
            return read.decode(errors="replace")
        read += part
