"""Recognise transient resource exhaustion of the host (disk, file descriptors, processes, memory). The only place.

Errors are recognised by errno; the failed start of a sandbox by the messages of guard, bubblewrap and launcher. Errors
inside a running program are not looked at: the cause may be a limit of its sandbox, and its exit code reports them.
"""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from infra.contract.errors import HostExhausted

_RESOURCES = {
    errno.ENOSPC: "disk space",
    errno.EDQUOT: "disk space",
    errno.EMFILE: "open files",
    errno.ENFILE: "open files",
    errno.EAGAIN: "processes or threads",
    errno.ENOMEM: "memory",
}
_NO_THREAD = "can't start new thread"
"""Message of the RuntimeError that Python raises without an errno."""
_PATTERNS = {number: rf"{re.escape(os.strerror(number))}|\bError {number}\b" for number in _RESOURCES}
"""The dynamic linker knows few texts and prints the number: `cannot open shared object file: Error 23`."""
_PATTERNS[errno.ENOMEM] += "|MemoryError"


@contextmanager
def translate_exhaustion() -> Iterator[None]:
    """Raise HostExhausted instead of an error that reports exhaustion. Other errors are raised unchanged."""
    try:
        yield
    except (OSError, RuntimeError, MemoryError) as exc:
        number = _number(exc)
        if number not in _RESOURCES:
            raise
        raise HostExhausted(_message(number, os.strerror(number))) from exc


def raise_if_exhausted(error: BaseException) -> None:
    """Raise HostExhausted if exhaustion is the error, or one of its causes, as libraries wrap them."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _RESOURCES:
            raise HostExhausted(_message(cause.errno, os.strerror(cause.errno))) from error
        cause = cause.__cause__ or cause.__context__


def exhaustion_in(text: str) -> HostExhausted | None:
    """Return the exhaustion that a failed program's error output reports, or None."""
    lines = text.splitlines() or [""]
    for number, pattern in _PATTERNS.items():
        if re.search(pattern, text):
            return HostExhausted(_message(number, lines[-1]))
    return None


def _number(error: Exception) -> int:
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    if isinstance(error, OSError):
        return error.errno or 0
    return errno.EAGAIN if str(error) == _NO_THREAD else 0


def _message(number: int, detail: str) -> str:
    return f"the worker's host is short of {_RESOURCES[number]}: {detail}"
