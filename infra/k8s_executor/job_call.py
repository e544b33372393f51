"""One execution: its Job is created or found, its pod is awaited, started and followed, its result is taken over."""

import asyncio
import hashlib
from pathlib import Path

from infra.contract.errors import ContractError, ExecutorUnavailable, FilesUnavailable, LeaseLost, LimitExceeded
from infra.contract.execution import Command, Execution, ExecutionCaller, OnLine
from infra.contract.lending import ExecutorFiles, OpenExecution
from infra.k8s_executor.control import PodControl
from infra.k8s_executor.deadlines import deadlines
from infra.k8s_executor.endings import Target
from infra.k8s_executor.job import CALL, DIGEST_NAME, EXECUTION, RUN, job, job_name
from infra.k8s_executor.observer import Observed
from infra.k8s_executor.pod_call import PodCalls
from infra.k8s_executor.running_pod import (
    Cluster,
    create,
    hang_up_after_end,
    has_ended,
    reason_of_end,
    started,
    until_runner,
)
from infra.k8s_executor.stored_call import NoResult, StoredCall
from infra.k8s_executor.views import JobView, PodView

UNOBSERVED_S = 60.0
"""Age of the last news of the API server from which the object store is asked whether an execution has ended."""
_TRANSIENT = {"executor_unavailable", "files_unavailable", "host_exhausted"}
"""Codes of results that another execution may not meet."""


class JobCall:
    """Execution `begun` of a command."""

    def __init__(
        self,
        cluster: Cluster,
        command: Command,
        begun: OpenExecution,
        files: ExecutorFiles,
        on_line: OnLine,
        caller: ExecutionCaller,
    ) -> None:
        self._cluster = cluster
        self._command = command
        self._begun = begun
        self._files = files
        self._caller = caller
        self._call = StoredCall(files, begun.loan, command, on_line)
        self._name = job_name(command.run_id, begun.call, begun.number)
        self._uid = ""
        self._address = ""

    async def create(self) -> None:
        """Create the Job, or find it if it was created before. Raises LeaseLost, ExecutorUnavailable, NoResult."""
        self._check_lease()
        manifest = job(self._cluster.profile, self._command, self._begun.number, self._token_sha256)
        made = await create(self._cluster.api, manifest)
        self._check(made)
        self._uid = made.metadata.uid

    async def find(self) -> JobView | None:
        """Return the Job if it exists and has not ended."""
        found = await self._cluster.api.job(self._name)
        if found is None:
            return None
        self._check(found)
        self._uid = found.metadata.uid
        return None if found.has_ended else found

    async def carry_out(self, output: Path) -> Execution:
        """Wait for the pod, start the program unless it was started, follow it to its end, and take over its result.

        Raises NoResult if there is none, and will be none.
        """
        with self._cluster.observer.observing(self._uid) as observed:
            await until_runner(self._cluster, observed, self._name, self._uid)
            if observed.pod is not None and not observed.pod.has_ended:
                await self._follow(observed, observed.pod)
            return await self._take_over(observed, output)

    async def stored(self, output: Path) -> Execution:
        """Take over the result of an execution whose Job has ended or is gone. Raises NoResult if there is none."""
        result = await self._call.result()
        if result.error and result.error[0] in _TRANSIENT:
            raise NoResult(result.error[1], result.failure())
        return await self._call.take_over(result, output)

    def target(self) -> Target:
        """Return the execution as a target to end."""
        bound_s = deadlines(self._command.timeout_s).worker_s
        return Target(self._name, self._uid, self._command.run_id, bound_s, self._control)

    @property
    def _token_sha256(self) -> str:
        return hashlib.sha256(self._begun.token.encode()).hexdigest()

    def _control(self) -> PodControl | None:
        return PodControl(self._address, self._cluster.port, self._begun.token) if self._address else None

    def _check_lease(self) -> None:
        """Raise LeaseLost if the next owner of the run may have given up this execution already."""
        if self._caller.continues_elsewhere():
            raise LeaseLost(f"the lease of run {self._command.run_id} is lost, so its program is not started here")

    def _check(self, found: JobView) -> None:
        """Raise ExecutorUnavailable if a Job of this name belongs to something else than this execution."""
        notes = found.metadata.annotations or {}
        expected = {RUN: self._command.run_id, CALL: self._begun.call, EXECUTION: str(self._begun.number)}
        if any(notes.get(name) != value for name, value in expected.items()):
            raise ExecutorUnavailable(f"the Job {self._name} belongs to something else; delete it")
        if found.variable(DIGEST_NAME) != self._token_sha256:
            raise ExecutorUnavailable(f"the Job {self._name} has the token of another worker; delete it")

    async def _follow(self, observed: Observed, pod: PodView) -> None:
        """Start the program, unless it was started, and pass on its lines until the pod has ended."""
        self._address = pod.status.pod_ip or ""
        control = PodControl(self._address, self._cluster.port, self._begun.token)

        calls = PodCalls(control, self._files, lambda: self._is_over(observed))
        watching = asyncio.create_task(hang_up_after_end(control, observed))
        try:
            if await started(self._cluster, observed, lambda: self._start(calls)):
                await calls.pass_lines(self._call.lines)
        finally:
            watching.cancel()

    async def _is_over(self, observed: Observed) -> bool:
        """Return whether the pod has ended, or has stored a result while the API server says nothing."""
        if has_ended(observed):
            return True
        if self._cluster.observer.age_s < UNOBSERVED_S:
            return False
        try:
            await self._call.result()
        except (NoResult, FilesUnavailable):
            return False
        return True

    async def _start(self, calls: PodCalls) -> None:
        """Start the program, unless it was started. Raises LeaseLost, PodUnreachable, ExecutorUnavailable."""
        self._check_lease()
        if await calls.start(self._begun.loan) != self._begun.loan:
            raise ExecutorUnavailable(f"the pod of the Job {self._name} was started by somebody else")

    async def _take_over(self, observed: Observed, output: Path) -> Execution:
        try:
            return await self.stored(output)
        except NoResult as error:
            raise await self._reason(observed, error) from error

    async def _reason(self, observed: Observed, error: NoResult) -> ContractError:
        """Return the reason for a missing result, from the states of pod and Job."""
        reason = await reason_of_end(self._cluster, observed, self._name)
        if isinstance(reason, LimitExceeded):
            return reason
        return NoResult(str(reason or error), reason)
