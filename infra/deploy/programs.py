"""Programs that a deployment drives: kubectl, helm, osls. Every one that changes something is shown before it runs."""

import os
import shlex
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from infra.deploy.errors import DeployFailed

READ_TIMEOUT_S = 60.0
CHANGE_TIMEOUT_S = 1800.0
TRIES = 3
PAUSE_S = 2.0
LOOK_S = 0.1
CHUNK_BYTES = 16 * 1024 * 1024
MAX_ERROR_CHARS = 500
_FINAL = ("(Forbidden)", "(Invalid)", "(BadRequest)", "(NotFound)")
"""What kubectl says of failures that are the same at every try."""
_ERRORS = ("Error", "error", "- at ", "Unable to connect to the server", "The connection to the server")
"""Beginnings of the lines of kubectl and helm that name an error."""


class ProgramFailed(DeployFailed):
    """Program that could not be started, took too long, or exited with another code than 0."""


class Programs:
    """Runs programs. With `dry_run`, those that change something are shown only."""

    def __init__(self, say: Callable[[str], None], *, dry_run: bool = False) -> None:
        self.say = say
        self.dry_run = dry_run

    def read(self, *command: str, stdin: str | None = None, cwd: Path | None = None) -> str:
        """Return the output of a program that changes nothing. Raises ProgramFailed."""
        # Files and no pipes: a program of its own, such as one that fetches a token, may outlive it and hold a pipe.
        with _file(stdin or "") as given, _file() as out, _file() as err:
            try:
                done = subprocess.run(
                    command, stdin=given, stdout=out, stderr=err, cwd=cwd, timeout=READ_TIMEOUT_S, check=False
                )
            except OSError as exc:
                raise _not_started(command, exc) from None
            except subprocess.TimeoutExpired:
                raise ProgramFailed(f"{Path(command[0]).name} did not end within {READ_TIMEOUT_S:.0f} s") from None
            if done.returncode:
                raise _failed(command, done.returncode, f"{_text(err)}\n{_text(out)}")
            return _text(out)

    def change(
        self, *command: str, stdin: str | None = None, source: str = "", cwd: Path | None = None, tries: int = TRIES
    ) -> None:
        """Show a program that changes something, run it, and show its output. Raises ProgramFailed.

        `source` is the command whose output is `stdin`. A program whose repetition is harmless is tried again, unless
        the failure would be the same.
        """
        shown = shlex.join(command)
        self.say(f"$ {source} | {shown}" if source else f"$ {shown}")
        if self.dry_run:
            return
        for left in reversed(range(tries)):
            try:
                self._run(command, stdin, cwd)
            except ProgramFailed as exc:
                if not left or any(word in str(exc) for word in _FINAL):
                    raise
                self.say(f"  again in {PAUSE_S:.0f} s: {exc}")
                time.sleep(PAUSE_S)
            else:
                return

    def _run(self, command: Sequence[str], stdin: str | None, cwd: Path | None) -> None:
        """Run a program once, with its output line by line."""
        lines: list[str] = []
        began_s = time.monotonic()
        # Files here, too: what a killed program has started may hold a pipe for ever.
        with _file(stdin or "") as given, _file() as out:
            try:
                child = subprocess.Popen(command, stdin=given, cwd=cwd, stdout=out, stderr=subprocess.STDOUT)
            except OSError as exc:
                raise _not_started(command, exc) from None
            watchdog = threading.Timer(CHANGE_TIMEOUT_S, child.kill)
            watchdog.start()
            try:
                with child:
                    for line in _lines(child, out):
                        self.say(f"  {line.rstrip()}")
                        lines = [*lines[-20:], line]
            finally:
                watchdog.cancel()
        if child.returncode < 0 and time.monotonic() - began_s >= CHANGE_TIMEOUT_S:
            raise ProgramFailed(f"{Path(command[0]).name} did not end within {CHANGE_TIMEOUT_S:.0f} s")
        if child.returncode:
            raise _failed(command, child.returncode, "\n".join(lines))


@contextmanager
def _file(text: str = "") -> Iterator[IO[bytes]]:
    """Yield an unnamed file with a text, at its beginning."""
    with tempfile.TemporaryFile() as file:
        file.write(text.encode())
        file.seek(0)
        yield file


def _lines(child: "subprocess.Popen[bytes]", file: IO[bytes]) -> Iterator[str]:
    """Yield the lines that a program writes into a file, until it has ended."""
    begun, at, has_ended = b"", 0, False
    while not has_ended:
        has_ended = child.poll() is not None  # asked first: it writes nothing more then
        data = os.pread(file.fileno(), CHUNK_BYTES, at)
        at += len(data)
        *lines, begun = (begun + data).split(b"\n")
        for line in lines:
            yield from line.decode(errors="replace").splitlines() or [""]
        if not (data or has_ended):
            time.sleep(LOOK_S)
    if begun:
        yield begun.decode(errors="replace")


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def _not_started(command: Sequence[str], error: OSError) -> ProgramFailed:
    name = Path(command[0]).name
    if isinstance(error, FileNotFoundError):
        return ProgramFailed(f"{name} is not installed, or not in the PATH")
    return ProgramFailed(f"{name} cannot be started: {error.strerror}")


def _failed(command: Sequence[str], code: int, output: str) -> ProgramFailed:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    if "Error:" in lines:  # of osls, with the message on the next lines
        errors = lines[lines.index("Error:") + 1 :][:3]
    else:
        # kubectl has warnings on the same stream, and names the errors of several objects one after the other.
        # helm has a line "- at …" for each value that its chart does not take.
        errors = [line for line in lines if line.startswith(_ERRORS)] or lines[-3:]
    text = "; ".join(errors)[:MAX_ERROR_CHARS] or f"exit code {code}"
    return ProgramFailed(f"{Path(command[0]).name} failed: {text}")
