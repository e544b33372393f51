"""Cancellation of blocking network calls from another thread, by shutting down their sockets.

A socket timeout limits a single read or write, so a peer that sends a byte now and then blocks a thread without limit.
A thread that blocks in the kernel cannot watch an event, but its call returns once its socket is shut down.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from threading import Event, Lock
from weakref import WeakKeyDictionary


class CallCancelled(BaseException):
    """Ends a blocking call in its thread, after the task that awaits the call was cancelled.

    Never leaves the thread pool: the task itself raises asyncio.CancelledError. Not an Exception, so that no code
    between takes it for a failure and retries.
    """


class Cancellation(Event):
    """Cancellation of one blocking call. Once it is set, network operations of the call end with an error."""

    def set(self) -> None:
        """Cancel the call. Does not block."""
        with _lock:
            super().set()
            for sock, user in _users.items():
                if user is self:
                    with suppress(OSError):  # already closed
                        # Not the method of a TLS socket: it drops the TLS state, and the thread would continue
                        # unencrypted.
                        socket.socket.shutdown(sock, socket.SHUT_RDWR)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Make the code of this thread inside the block part of the call."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)


_lock = Lock()
_current: ContextVar[Cancellation | None] = ContextVar("_current", default=None)
_users: WeakKeyDictionary[socket.socket, Cancellation | None] = WeakKeyDictionary()
"""Latest call that used each socket. Connections are reused, and a cancelled call must not end its successor's."""


def register_socket(sock: socket.socket) -> None:
    """Assign the socket to this thread's call, until the next registration. Raises CallCancelled."""
    with _lock:
        raise_if_cancelled()
        _users[sock] = _current.get()


def raise_if_cancelled() -> None:
    """Raise CallCancelled if this thread's call has been cancelled."""
    cancellation = _current.get()
    if cancellation and cancellation.is_set():
        raise CallCancelled
