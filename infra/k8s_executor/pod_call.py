"""Call of a pod, from the worker's side: offer and start it, follow its lines, take back what the pod stored.

A worker that takes over a run follows a call that a former one has started: `follow` with the loan of that one, which
is in the journal, and with the number of the last line that is in the log.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from infra.contract.errors import ExecutorUnavailable, FileMissing, HostExhausted
from infra.contract.execution import Command, Execution, OnLine, OutputStream
from infra.contract.files import FileChanges
from infra.contract.lending import LendableFiles, Loan, ObjectName
from infra.k8s_executor import protocol
from infra.k8s_executor.control import PodControl, PodUnreachable
from infra.k8s_executor.protocol import CallResult, LineRecord

SLOTS = 32
"""Changed files that get a signed URL each. Signing one takes about a millisecond of the worker."""
TRANSFER_S = 300.0
"""Time limit for fetching the files of a call, and for storing them."""
RECONNECT_S = 1.0
CANCEL_S = 5.0


@dataclass(frozen=True)
class Offer:
    """Call that can be started. `manifest_url` is a secret."""

    loan: Loan
    manifest_url: str = field(repr=False)


class PodCalls:
    """Calls of one pod. `gone` tells whether the pod has ended, and so will not answer any more."""

    def __init__(self, control: PodControl, files: LendableFiles, gone: Callable[[], Awaitable[bool]]) -> None:
        self._control = control
        self._files = files
        self._gone = gone

    async def offer(self, command: Command, proxy_url: str = "") -> Offer:
        """Lend the workspace and store the manifest. The loan is to be journaled before the start.

        `proxy_url`: URL of the egress proxy for a command with a network (`EgressTokens.proxy_url`).
        Raises FilesUnavailable.
        """
        # The URLs outlive everything that may use them.
        expires_s = int(command.timeout_s + 3 * TRANSFER_S)
        loan, lent = await self._files.lend(SLOTS, expires_s)
        url = await self._files.publish(loan, protocol.manifest(command, lent, TRANSFER_S, proxy_url), expires_s)
        return Offer(loan, url)

    async def start(self, offer: Offer) -> Loan:
        """Start the program, unless it was started before; return the loan of the start that counts.

        Raises PodUnreachable. The start may have been received all the same: another call finds it.
        """
        started = await self._control.start(offer.loan.number, offer.manifest_url)
        return offer.loan if started == offer.loan.number else Loan(number=started, slots=SLOTS)

    async def follow(self, loan: Loan, command: Command, on_line: OnLine, output: Path, after: int = 0) -> Execution:
        """Pass on the lines after a number, then take over the result; `output` is the folder for stdout and stderr.

        Has no deadline of its own: the deadline of the caller covers a pod that neither answers nor ends.
        If the task is cancelled, the program is dead before CancelledError is raised, provided that the pod answers.
        Raises the errors of the port `Executor`.
        """
        lines = _Lines(on_line, after)
        try:
            await self._follow(lines)
        except BaseException:  # a cancellation, or an error of the log
            with suppress(PodUnreachable):
                await self._control.cancel(CANCEL_S)
            raise
        result = await self._result(loan)
        if result.lines > lines.last:
            await lines.pass_all(await self._files.fetch(loan, "lines", protocol.LINE_BYTES))
        if failure := result.failure():
            raise failure
        if result.cancelled or result.changes is None:
            raise HostExhausted("the pod was ended from outside while its program ran")
        limit = command.limits.output_bytes
        stdout = await self._output(loan, "stdout", limit, output / f"{command.call}.stdout")
        stderr = await self._output(loan, "stderr", limit, output / f"{command.call}.stderr")
        changes: FileChanges = await self._files.take_back(loan, result.changes)
        return Execution(
            exit_code=result.exit_code,
            timed_out=result.timed_out,
            duration_ms=result.duration_ms,
            stdout=stdout,
            stderr=stderr,
            stdout_bytes=result.stdout_bytes,
            stderr_bytes=result.stderr_bytes,
            changes=changes,
        )

    async def _follow(self, lines: "_Lines") -> None:
        """Pass on lines until the end, over as many connections as it takes, or until the pod is gone."""
        while True:
            with suppress(PodUnreachable):
                async with aclosing(self._control.records(lines.last)) as records:
                    async for record in records:
                        if record.end is True:
                            return
                        await lines.pass_on(record)
            if await self._gone():
                return
            await asyncio.sleep(RECONNECT_S)

    async def _result(self, loan: Loan) -> CallResult:
        try:
            data = await self._files.fetch(loan, "result.json", protocol.MAX_RESULT_BYTES)
        except FileMissing as error:
            raise HostExhausted("the pod ended without a result") from error
        try:
            return msgspec.json.decode(data, type=CallResult)
        except msgspec.MsgspecError as error:
            raise ExecutorUnavailable("the result of the pod cannot be read; is its image of this release?") from error

    async def _output(self, loan: Loan, name: ObjectName, max_bytes: int, target: Path) -> Path:
        await self._files.save(loan, name, max_bytes, target)
        return target


class _Lines:
    """Lines on their way to the log. `last` is the number of the last one that was passed on."""

    def __init__(self, on_line: OnLine, last: int) -> None:
        self.last = last
        self._on_line = on_line
        self._wanted: dict[OutputStream, bool] = {"stdout": True, "stderr": True}

    async def pass_on(self, record: LineRecord) -> None:
        if record.n <= self.last:
            return
        if record.n != self.last + 1:
            raise PodUnreachable(f"the pod skipped from line {self.last} to {record.n}")
        if not record.cut and self._wanted[record.s]:
            self._wanted[record.s] = await self._on_line(record.s, record.part())
        self.last = record.n

    async def pass_all(self, stored: bytes) -> None:
        """Pass on those of the stored lines that are missing."""
        for line in stored.splitlines():
            try:
                await self.pass_on(msgspec.json.decode(line, type=LineRecord))
            except msgspec.MsgspecError as error:
                raise ExecutorUnavailable("the stored lines of the pod cannot be read") from error
