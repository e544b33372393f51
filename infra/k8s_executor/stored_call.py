"""Objects that the pod of a call has stored: lines, result, output and changes. Any owner of the run may read them."""

from pathlib import Path

import msgspec

from infra.contract.errors import ContractError, ExecutorUnavailable, FileMissing, HostExhausted
from infra.contract.execution import Command, Execution, OnLine, OutputStream
from infra.contract.files import FileChanges
from infra.contract.lending import LendableFiles, Loan, ObjectName
from infra.k8s_executor import protocol
from infra.k8s_executor.control import PodUnreachable
from infra.k8s_executor.protocol import CallResult, LineRecord


class LinesSkipped(PodUnreachable):
    """Pod that does not send the lines in order."""


class NoResult(HostExhausted):
    """Execution without a result that counts, and without hope for one. `failure` is the error to report for it."""

    def __init__(self, message: str, failure: ContractError | None = None) -> None:
        super().__init__(message)
        self.failure = failure or self


class Lines:
    """Lines on their way to the log. `last` is the number of the last one that was passed on."""

    def __init__(self, on_line: OnLine) -> None:
        self.last = 0
        self._on_line = on_line
        self._wanted: dict[OutputStream, bool] = {"stdout": True, "stderr": True}

    async def pass_on(self, record: LineRecord) -> None:
        """Pass on the next line. Lines that were passed on before are left out. Raises LinesSkipped."""
        if record.n <= self.last:
            return
        if record.n != self.last + 1:
            raise LinesSkipped(f"the pod skipped from line {self.last} to {record.n}")
        if not record.cut and self._wanted[record.s]:
            self._wanted[record.s] = await self._on_line(record.s, record.part())
        self.last = record.n

    async def pass_all(self, stored: bytes) -> None:
        """Pass on the stored lines that are missing. Raises ExecutorUnavailable."""
        for line in stored.splitlines():
            try:
                await self.pass_on(msgspec.json.decode(line, type=LineRecord))
            except msgspec.MsgspecError as error:
                raise ExecutorUnavailable("the stored lines of the pod cannot be read") from error


class StoredCall:
    """Objects of the loan of a call."""

    def __init__(self, files: LendableFiles, loan: Loan, command: Command, on_line: OnLine) -> None:
        self.lines = Lines(on_line)
        self._files = files
        self._loan = loan
        self._command = command

    async def result(self) -> CallResult:
        """Return the result of a pod that has ended. Raises NoResult, ExecutorUnavailable, FilesUnavailable."""
        try:
            data = await self._files.fetch(self._loan, "result.json", protocol.MAX_RESULT_BYTES)
        except FileMissing as error:
            raise NoResult("the pod ended without a result") from error
        try:
            return msgspec.json.decode(data, type=CallResult)
        except msgspec.MsgspecError as error:
            raise ExecutorUnavailable("the result of the pod cannot be read; is its image of this release?") from error

    async def take_over(self, result: CallResult, output: Path) -> Execution:
        """Pass on the lines that are missing, and add the changes to the workspace.

        `output` is the folder for stdout and stderr. Raises NoResult, and the errors of the port `Executor`.
        """
        if result.lines > self.lines.last:
            await self.lines.pass_all(await self._files.fetch(self._loan, "lines", protocol.LINE_BYTES))
        if failure := result.failure():
            raise failure
        if result.cancelled or result.changes is None:
            raise NoResult("the pod was ended from outside while its program ran")
        stdout, stderr = await self._output("stdout", output), await self._output("stderr", output)
        changes: FileChanges = await self._files.take_back(self._loan, result.changes)
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

    async def _output(self, name: ObjectName, folder: Path) -> Path:
        target = folder / f"{self._command.call}.{name}"
        await self._files.save(self._loan, name, self._command.limits.output_bytes, target)
        return target
