"""Owners of connections: a process, and in an asynchronous program an event loop.

A connection that a forked process inherits is shared with its parent, so that either may receive the answer of the
other. A connection of another event loop cannot be used at all.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Optional, TypeVar

from swissbrain.errors import ClientError

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

T = TypeVar("T")


@dataclass(frozen=True)
class Owner:
    """Process, and event loop if connections belong to one."""

    process: int
    loop: Optional["AbstractEventLoop"] = None

    @property
    def exists(self) -> bool:
        """True if this process may be asked for the connections of this owner again."""
        return self.process == os.getpid() and not (self.loop and self.loop.is_closed())


def owner() -> Owner:
    """Return the owner of connections that are used here, in a synchronous program."""
    return Owner(os.getpid())


def async_owner() -> Owner:
    """Return the owner of connections that are used here, in an asynchronous program."""
    import asyncio  # here, because it takes longer than the rest that a synchronous client imports

    loop = None
    with suppress(RuntimeError):  # no loop of asyncio: trio
        loop = asyncio.get_running_loop()
    return Owner(os.getpid(), loop)


class PerOwner(Generic[T]):
    """One value for each owner, opened when it is needed. The first one is opened at once, so that errors come early.

    Values of owners that exist no more are dropped, and not closed: their connections cannot be used here. Needs no
    lock, which another thread could hold while the process is forked.
    """

    def __init__(self, open_one: Callable[[], T]) -> None:
        self._open = open_one
        self._spare = [open_one()]
        self._held: dict[Owner, T] = {}
        self._is_closed = False

    def get(self, owner: Owner) -> T:
        """Return the value of an owner. Raises ClientError after `take_last`."""
        if self._is_closed:
            raise ClientError("the client is closed")
        held = self._held.get(owner)
        if held is None:
            for each in [each for each in list(self._held) if not each.exists]:
                self._held.pop(each, None)
            held = self._held.setdefault(owner, self._spare.pop() if self._spare else self._open())
        return held

    def take_last(self, owner: Owner) -> T | None:
        """Return the value of an owner, so that it can be closed, or None; there will be no further values."""
        self._is_closed = True
        return self._held.pop(owner, None) or (self._spare.pop() if self._spare else None)
