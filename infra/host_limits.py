"""Errors of this host that pass: it is short of what all runs on it share. Told from all others here and nowhere else.

By their numbers, or, of a sandbox that did not come about, by what guard, bubblewrap and launcher have said. What a
program is told once it runs is its own matter: it may be a limit of its sandbox, and it ends with an exit code.
"""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from infra.contract.errors import HostExhausted

_LACKS = {
    errno.ENOSPC: "disk space",
    errno.EDQUOT: "disk space",
    errno.EMFILE: "open files",
    errno.ENFILE: "open files",
    errno.EAGAIN: "processes or threads",
    errno.ENOMEM: "memory",
}
_NO_THREAD = "can't start new thread"
"""Python has no number for this, but a RuntimeError."""
_SIGNS = {number: rf"{re.escape(os.strerror(number))}|\bError {number}\b" for number in _LACKS}
"""The dynamic linker knows few texts and gives the number: `cannot open shared object file: Error 23`."""
_SIGNS[errno.ENOMEM] += "|MemoryError"


@contextmanager
def translate_exhaustion() -> Iterator[None]:
    """Raise HostExhausted instead of an error that means it; all others pass."""
    try:
        yield
    except (OSError, RuntimeError, MemoryError) as exc:
        number = _number(exc)
        if number not in _LACKS:
            raise
        raise HostExhausted(_message(number, os.strerror(number))) from exc


def exhaustion_in(text: str) -> HostExhausted | None:
    """What the last words of something that could not start say of the host, if they do."""
    lines = text.splitlines() or [""]
    for number, sign in _SIGNS.items():
        if re.search(sign, text):
            return HostExhausted(_message(number, lines[-1]))
    return None


def _number(error: Exception) -> int:
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    if isinstance(error, OSError):
        return error.errno or 0
    return errno.EAGAIN if str(error) == _NO_THREAD else 0


def _message(number: int, said: str) -> str:
    return f"the worker's host is short of {_LACKS[number]}: {said}"
