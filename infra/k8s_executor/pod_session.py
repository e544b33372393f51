"""Session of a pod, from the worker's side: requests over connections that may be cut, and signs of life.

The runner keeps the last reply and knows requests by their numbers. So a request whose connection was cut is sent again
and is carried out once.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from infra.contract.errors import SessionLost
from infra.contract.execution import Command
from infra.k8s_executor.control import PodControl, PodUnreachable
from infra.k8s_executor.protocol import session_manifest

KEEP_S = 20.0
"""Interval of the sign of life."""
SILENCE_S = 90.0
"""Time without a sign of life after which the pod takes its worker for lost, and ends."""
RETRY_S = 0.5


class PodSessionClient:
    """Requests to the program of a session. `gone` returns True once the pod is known to have ended."""

    def __init__(self, control: PodControl, max_reply_bytes: int, gone: Callable[[], bool]) -> None:
        self._control = control
        self._max_reply_bytes = max_reply_bytes
        self._gone = gone
        self._number = 0
        self._lost = ""

    async def open(self, name: str, command: Command, proxy_url: str = "") -> None:
        """Start the program. Raises PodUnreachable, SessionRefused; after the first of them, call this again.

        `proxy_url`: URL of the egress proxy for a command with a network, which is a secret.
        """
        await self._control.open(name, session_manifest(command, self._max_reply_bytes, SILENCE_S, proxy_url))

    async def ask(self, request: bytes) -> bytes:
        """Return the reply to a request, over as many connections as it takes. Raises SessionLost, PodUnreachable.

        The latter is raised when the pod has ended. A pod that neither answers nor ends is the caller's deadline.
        """
        if self._lost:
            raise SessionLost(self._lost)
        self._number += 1
        while True:
            try:
                return await self._control.ask(self._number, request, self._max_reply_bytes)
            except PodUnreachable:
                if self._gone():
                    raise
                await asyncio.sleep(RETRY_S)

    async def keep(self) -> None:
        """Give signs of life until the program has ended; the next request gets the reason."""
        while not self._lost:
            await asyncio.sleep(KEEP_S)
            with suppress(PodUnreachable):
                self._lost = await self._control.keep()
