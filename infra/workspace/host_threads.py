"""Threads on a host that may be short of them."""

from collections.abc import Callable
from threading import Event
from typing import TypeVar

from infra.contract.errors import WorkerShort
from infra.shortage import shortages
from infra.workspace.stop import Stop, Stopped
from infra.workspace.threads import Threads

Result = TypeVar("Result")


class HostThreads(Threads):
    """Threads whose calls raise WorkerShort if the host has no thread for them, or too little of what they need."""

    async def call(self, function: Callable[[Stop], Result]) -> Result:
        """See Threads. A call that was refused is not made later either, when one of the other threads has time."""
        refused = Event()

        def unless_refused(stop: Stop) -> Result:
            if refused.is_set():
                raise Stopped
            return function(stop)

        try:
            with shortages():
                return await super().call(unless_refused)
        except WorkerShort:
            refused.set()  # the pool keeps what it has been given, though it could not start a thread for it
            raise
