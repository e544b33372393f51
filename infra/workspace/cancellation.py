"""Blocking calls that are ended from outside: the sockets they send and receive over are shut down.

A timeout of a socket is for one read or write, so a peer that sends a byte now and then holds a thread as long as it
likes. Nothing that blocks in the kernel can be told to look at an event, but it returns once the socket is shut down.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from threading import Event, Lock
from weakref import WeakKeyDictionary


class Stopped(BaseException):
    """The awaiting task was cancelled; seen by nobody else, since that task raises CancelledError.

    No Exception, as CancelledError is none: nobody on its way takes it for a failure and tries again.
    """


class Stop(Event):
    """Set once the awaiting task is cancelled. What uses the network for its call ends with an error then."""

    def set(self) -> None:
        """Stop the call. Does not block."""
        with _lock:
            super().set()
            for sock, stop in _users.items():
                if stop is self:
                    with suppress(OSError):  # closed already
                        # Not by the method of a TLS socket: after that, its thread would go on in the clear.
                        socket.socket.shutdown(sock, socket.SHUT_RDWR)

    @contextmanager
    def governs(self) -> Iterator[None]:
        """What this thread does inside is part of the call."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)


_lock = Lock()
_current: ContextVar[Stop | None] = ContextVar("_current", default=None)
_users: WeakKeyDictionary[socket.socket, Stop | None] = WeakKeyDictionary()
"""Who used a socket last. Connections are kept for the next call, which must not be ended by the stop of this one."""


def uses(sock: socket.socket) -> None:
    """This thread's call sends and receives over the socket from now on. Raises Stopped."""
    with _lock:
        look()
        _users[sock] = _current.get()


def look() -> None:
    """Raise Stopped if this thread's call has been stopped."""
    stop = _current.get()
    if stop and stop.is_set():
        raise Stopped
