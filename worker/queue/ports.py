"""Ports of the loop: wake tokens, and the identity of this worker process."""

from collections.abc import Sequence
from typing import Protocol

from infra.contract.log import LogFeed


class WakeFeed(LogFeed, Protocol):
    """Port to wake tokens and to the control channel."""

    async def wait_token(self, key: str, timeout_s: float) -> bool:
        """Take a token of the list; return False if there was none for `timeout_s`. Raises StoreUnavailable."""
        ...


class ProcessIdentity(Protocol):
    """Name of this worker process, and the names of earlier ones that are known to have ended."""

    @property
    def process(self) -> str:
        """Name of this process, new at each start."""
        ...

    @property
    def dead_processes(self) -> Sequence[str]:
        """Names of ended processes whose runs a claim must recover."""
        ...

    def forget_dead(self) -> None:
        """Record that the runs of the dead processes are recovered."""
        ...
