"""Call of a pod, from the worker's side: prepare and start it, follow its lines.

A worker that takes over a run follows a call that a former one has started, with the loan that is in the journal.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from infra.contract.errors import ExecutorUnavailable
from infra.contract.execution import Command
from infra.contract.lending import LendableFiles, Loan
from infra.k8s_executor import protocol
from infra.k8s_executor.control import PodControl, PodUnreachable
from infra.k8s_executor.deadlines import TRANSFER_S, deadlines
from infra.k8s_executor.stored_call import Lines, LinesSkipped

SLOTS = 32
"""Changed files that get a signed URL each. Signing one takes about a millisecond of the worker."""
RECONNECT_S = 1.0
MANIFEST_S = 600
"""Time for which the URL of a manifest is valid. The runner fetches the manifest as soon as it is started."""
MAX_SKIPS = 3
"""Connections in a row that may skip lines before the pod counts as broken."""


async def prepare(command: Command, files: LendableFiles, proxy_url: str = "") -> Loan:
    """Lend the workspace and store the manifest of a call. Raises FilesUnavailable.

    `proxy_url`: URL of the egress proxy for a command with a network, which is a secret.
    """
    # The URLs outlive everything that may use them.
    loan, lent = await files.lend(SLOTS, deadlines(command.timeout_s).worker_s)
    await files.publish(loan, protocol.manifest(command, lent, TRANSFER_S, proxy_url))
    return loan


class PodCalls:
    """Calls of one pod. `gone` tells whether the pod has ended, and so will not answer any more."""

    def __init__(self, control: PodControl, files: LendableFiles, gone: Callable[[], Awaitable[bool]]) -> None:
        self._control = control
        self._files = files
        self._gone = gone

    async def start(self, loan: Loan) -> Loan:
        """Start the program, unless it was started before; return the loan of the start that counts.

        Raises FilesUnavailable, PodUnreachable. The start may have been received all the same: another call finds it.
        """
        started = await self._control.start(loan.number, await self._files.manifest_url(loan, MANIFEST_S))
        return loan if started == loan.number else Loan(number=started, slots=SLOTS)

    async def pass_lines(self, lines: Lines) -> None:
        """Pass on lines until the end, over as many connections as it takes, or until the pod is gone.

        Raises ExecutorUnavailable for a pod that keeps skipping lines.
        """
        skips = 0
        while True:
            before = lines.last
            try:
                async with aclosing(self._control.records(lines.last)) as records:
                    async for record in records:
                        if record.end is True:
                            return
                        await lines.pass_on(record)
            except LinesSkipped as error:
                skips = skips + 1 if lines.last == before else 1
                if skips >= MAX_SKIPS:
                    raise ExecutorUnavailable(f"{error}, again and again; is its image of this release?") from error
            except PodUnreachable:
                skips = 0
            if await self._gone():
                return
            await asyncio.sleep(RECONNECT_S)
