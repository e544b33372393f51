"""One execution: its Job is created or found, its pod is awaited, started and followed, its result is taken over."""

import asyncio
import hashlib
import math
import time
from dataclasses import dataclass
from pathlib import Path

from infra.contract.errors import ContractError, ExecutorUnavailable, FilesUnavailable, LeaseLost, LimitExceeded
from infra.contract.execution import Command, Execution, ExecutionCaller, OnLine
from infra.contract.lending import ExecutorFiles, OpenExecution
from infra.k8s_executor.api import ApiRefused, KubeApi
from infra.k8s_executor.control import PodControl, PodUnreachable
from infra.k8s_executor.deadlines import GRACE_S, PENDING_S, START_S, deadlines
from infra.k8s_executor.endings import Target
from infra.k8s_executor.job import CALL, CONTROL_PORT, DIGEST_NAME, EXECUTION, RUN, JobProfile, job, job_name
from infra.k8s_executor.observer import Observed, PodObserver
from infra.k8s_executor.pod_call import PodCalls
from infra.k8s_executor.pod_states import delay, loss, problem_patience_s, refusal_in, start_problem
from infra.k8s_executor.stored_call import NoResult, StoredCall
from infra.k8s_executor.views import JobView, PodView

POLL_S = 5.0
"""Interval in which Job, pods and events are asked for while no pod runs, beside the watch."""
FIRST_POLL_S = 1.5
UNOBSERVED_S = 60.0
"""Age of the last news of the API server from which the object store is asked whether an execution has ended."""
START_RETRY_S = 0.2
LOST_S = 60.0
"""Time after the grace period of a pod that is being deleted. If it neither ends nor answers by then, nobody confirms
its end any more, because its node is lost."""
DRAIN_S = 3.0
"""Time for the last lines of a pod that has ended."""
_TRANSIENT = {"executor_unavailable", "files_unavailable", "host_exhausted"}
"""Codes of results that another execution may not meet."""


@dataclass(frozen=True)
class Cluster:
    """Cluster as all executions of a worker use it. `port` is the control port of pods."""

    api: KubeApi
    observer: PodObserver
    profile: JobProfile
    port: int = CONTROL_PORT


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
        try:
            made, _ = await self._cluster.api.create_job(manifest)
        except ApiRefused as error:
            if error.status != 409:
                raise
            found = await self._cluster.api.job(self._name)
            if found is None:
                raise NoResult(f"the Job {self._name} was deleted while it was created") from error
            made = found
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
            await self._until_runner(observed)
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

    async def _until_runner(self, observed: Observed) -> None:
        """Wait until the runner runs, or has ended already. Raises NoResult if it will not run."""
        give_up_at = time.monotonic() + PENDING_S
        poll_at = time.monotonic() + FIRST_POLL_S
        failing_at = math.inf
        while not (observed.is_gone or (observed.pod and (observed.pod.is_running or observed.pod.has_ended))):
            if observed.pod and (problem := start_problem(observed.pod)):
                failing_at = min(failing_at, time.monotonic())
                if time.monotonic() >= failing_at + problem_patience_s(observed.pod):
                    raise NoResult(str(problem), problem)
            if time.monotonic() >= give_up_at:
                raise NoResult(f"the pod did not run within {PENDING_S} s: {delay(observed.pod)}")
            await observed.changed(max(0.01, poll_at - time.monotonic()))
            if time.monotonic() >= poll_at:
                await self._poll(observed)
                poll_at = time.monotonic() + POLL_S

    async def _poll(self, observed: Observed) -> None:
        """Ask for what the watch may have missed, and for the reason why there is no pod."""
        api = self._cluster.api
        await self._cluster.observer.refresh(self._uid, self._name)
        if observed.pod is not None:
            return
        if problem := refusal_in(await api.events(self._name), self._uid):
            raise NoResult(str(problem), problem)
        found = await api.job(self._name)
        if found is None or found.metadata.uid != self._uid or found.has_ended:
            failure = loss(None, found)
            raise NoResult(str(failure or "the Job was deleted before its pod ran"), failure)

    async def _follow(self, observed: Observed, pod: PodView) -> None:
        """Start the program, unless it was started, and pass on its lines until the pod has ended."""
        self._address = pod.status.pod_ip or ""
        control = PodControl(self._address, self._cluster.port, self._begun.token)

        calls = PodCalls(control, self._files, lambda: self._is_over(observed))
        watching = asyncio.create_task(_hang_up(control, observed))
        try:
            if await self._start(calls, observed):
                await calls.pass_lines(self._call.lines)
        finally:
            watching.cancel()

    async def _is_over(self, observed: Observed) -> bool:
        """Return whether the pod has ended, is lost, or has stored a result while the API server says nothing."""
        if _has_ended(observed) or time.monotonic() >= observed.deleted_at + GRACE_S + LOST_S:
            return True
        if self._cluster.observer.age_s < UNOBSERVED_S:
            return False
        try:
            await self._call.result()
        except (NoResult, FilesUnavailable):
            return False
        return True

    async def _start(self, calls: PodCalls, observed: Observed) -> bool:
        """Start the program; return False if the pod has ended before. Raises LeaseLost, NoResult."""
        give_up_at = time.monotonic() + START_S
        while not _has_ended(observed):
            self._check_lease()
            try:
                started = await calls.start(self._begun.loan)
            except PodUnreachable as error:
                if time.monotonic() >= give_up_at:
                    failure = ExecutorUnavailable(
                        f"the worker cannot reach the pod: {error}; the NetworkPolicy must let workers reach TCP port "
                        f"{self._cluster.port} of pods"
                    )
                    raise NoResult(str(failure), failure) from error
                await asyncio.sleep(START_RETRY_S)
                continue
            if started != self._begun.loan:
                raise ExecutorUnavailable(f"the pod of the Job {self._name} was started by somebody else")
            return True
        return False

    async def _take_over(self, observed: Observed, output: Path) -> Execution:
        try:
            return await self.stored(output)
        except NoResult as error:
            raise await self._reason(observed, error) from error

    async def _reason(self, observed: Observed, error: NoResult) -> ContractError:
        """Return the reason for a missing result, from the states of pod and Job."""
        if not observed.is_gone and observed.pod and not observed.pod.has_ended:
            await observed.changed(POLL_S)
        try:
            found = await self._cluster.api.job(self._name)
        except ContractError:
            found = None
        reason = loss(observed.pod, found)
        if isinstance(reason, LimitExceeded):
            return reason
        return NoResult(str(reason or error), reason)


async def _hang_up(control: PodControl, observed: Observed) -> None:
    """End the connections to a pod a moment after its end, in case that its node has left them open."""
    while not _has_ended(observed):
        await observed.changed(POLL_S)
    await asyncio.sleep(DRAIN_S)
    control.hang_up()


def _has_ended(observed: Observed) -> bool:
    return observed.is_gone or observed.pod is None or observed.pod.has_ended
