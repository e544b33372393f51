"""Executor that runs each program in a Job of Kubernetes, and adopts the Jobs of workers that were lost.

What happens when a worker is lost? The pod needs no worker: it runs its program to the end and stores the result. The
next owner of the run finds the execution in the journal and its Job under the name that follows from it, starts the
program unless it was started, and follows it. Each start of an execution leads to the same pod, which starts once.

Kubernetes knows no fences: a worker that was suspended may create a Job after the next owner has given up the
execution. Such a Job runs nothing, because the manifest of a given-up execution is withdrawn.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from infra.contract.errors import ExecutorUnavailable
from infra.contract.execution import Command, Execution, ExecutionCaller, OnLine, Session
from infra.contract.lending import ExecutorFiles, OpenExecution
from infra.folders import remove_tree
from infra.host_limits import translate_exhaustion
from infra.k8s_executor.api import KubeApi
from infra.k8s_executor.deadlines import deadlines
from infra.k8s_executor.endings import Endings, Target
from infra.k8s_executor.job import JobProfile, job, job_name, session_job
from infra.k8s_executor.job_call import JobCall
from infra.k8s_executor.job_session import JobSession
from infra.k8s_executor.observer import PodObserver
from infra.k8s_executor.pod_call import prepare
from infra.k8s_executor.reaper import OpenNumber, Reaper, RunningFence
from infra.k8s_executor.running_pod import Cluster
from infra.k8s_executor.stored_call import NoResult

T = TypeVar("T")
CANCEL_S = 5.0
"""Time for ending a program before the cancellation of its call completes without a confirmation."""
DEAD_S = 30.0
"""Time for making sure that a lost program is dead, before its call is executed again."""
DISCARD_S = 3600.0
"""Time for which the deletion of a Job is tried. After that, the reaper and the TTL are left."""
CLOSE_S = 5.0


class KubernetesExecutor:
    """Implements the port `Executor`. `folder` is for the output of programs, the two functions are as in `reaper`.

    `proxy_url` returns the URL of the egress proxy for a command with a network; None: no program may have one.
    """

    def __init__(
        self,
        api: KubeApi,
        profile: JobProfile,
        folder: Path,
        open_number: OpenNumber,
        running_fence: RunningFence,
        proxy_url: Callable[[Command], str] | None = None,
    ) -> None:
        self._api = api
        self._profile = profile
        self._folder = folder
        self._proxy_url = proxy_url
        self._observer = PodObserver(api)
        self._cluster = Cluster(api, self._observer, profile)
        self._endings = Endings(api)
        self._own: set[str] = set()
        self._sessions: dict[str, JobSession] = {}
        self._reaper = Reaper(api, profile.installation, open_number, running_fence, self._own)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def observed_age_s(self) -> float:
        """Seconds since the last news of the API server about the pods."""
        return self._observer.age_s

    @property
    def opens_sessions(self) -> bool:
        """True if there is an image for sessions."""
        return self._profile.session_image is not None

    async def check(self) -> None:
        """Raise ExecutorUnavailable if Jobs cannot be created, observed and deleted with these settings and rights."""
        self._begin()
        command = Command("check", "check", "sh", "true", timeout_s=10)
        name = f"check-{secrets.token_hex(8)}"
        manifests = [job(self._profile, command, 1, "0" * 64)]
        manifests[0]["metadata"]["name"] = name
        if self.opens_sessions:
            manifests.append(session_job(self._profile, command, 1, f"{name}-session", "0" * 64))
        for manifest in manifests:
            _, warnings = await self._api.create_job(manifest, dry_run=True)
            # A namespace that enforces another profile accepts the Job, and refuses its pods.
            if refused := [text for text in warnings if "PodSecurity" in text]:
                raise ExecutorUnavailable(f"the namespace '{self._profile.namespace}' refuses the pods: {refused[0]}")
        await self._api.delete_job(name, dry_run=True)
        _, version = await self._api.pods(limit=1)
        await self._api.check_watch(version)
        await self._api.job(name)
        await self._api.jobs({"swissbrain-agent/check": name})
        await self._api.events(name, limit=1)

    async def execute(
        self, command: Command, files: ExecutorFiles, on_line: OnLine, caller: ExecutionCaller
    ) -> Execution:
        """See the port. A program that was started is left running unless it is cancelled."""
        self._begin()
        loan = await prepare(command, files, self._proxy_of(command))
        begun = OpenExecution(call=command.call, number=caller.number, loan=loan, token=secrets.token_hex(32))
        await caller.record(begun)
        call = JobCall(self._cluster, command, begun, files, on_line, caller)

        async def run() -> Execution:
            await call.create()
            return await call.carry_out(self._output(command))

        try:
            return await self._guarded(call, command, caller, run())
        except NoResult as error:
            self._endings.begin(call.target())
            raise error.failure from error

    async def adopt(
        self, command: Command, begun: OpenExecution, files: ExecutorFiles, on_line: OnLine, caller: ExecutionCaller
    ) -> Execution | None:
        """See the port."""
        self._begin()
        call = JobCall(self._cluster, command, begun, files, on_line, caller)

        async def run() -> Execution:
            if await call.find():
                return await call.carry_out(self._output(command))
            try:
                return await call.stored(self._output(command))
            except NoResult:
                await files.withdraw(begun.loan)
                # A former owner may have created the Job in between; now no further one will run anything.
                if await call.find():
                    return await call.carry_out(self._output(command))
                raise

        try:
            return await self._guarded(call, command, caller, run())
        except NoResult:
            await files.withdraw(begun.loan)
            if not await self._endings.begin(call.target()).confirmed(DEAD_S):
                message = "the program of a lost worker left no result, and cannot be ended for sure, so it is kept"
                raise ExecutorUnavailable(message) from None
            return None

    def end_unowned(self, run_id: str | None) -> None:
        """See the port."""
        self._begin()
        self._reaper.ask(run_id)

    async def open(self, command: Command, max_reply_bytes: int, fence: int) -> Session:
        """See the port. A run has one session at a time: an earlier one is closed."""
        if not self.opens_sessions:
            raise ExecutorUnavailable("there is no image for sessions in pods: KUBERNETES_BROWSER_IMAGE is not set")
        if command.mounts or command.etc:
            raise ExecutorUnavailable("a session in a pod has the files of its image alone, and none of the worker")
        self._begin()
        proxy_url = self._proxy_of(command)
        if earlier := self._sessions.pop(command.run_id, None):
            await earlier.close()
        session = JobSession(self._cluster, self._endings, self._own, command, fence, max_reply_bytes)
        self._sessions[command.run_id] = session
        await session.begin(proxy_url)
        return session

    async def discard(self, run_id: str, begun: OpenExecution) -> None:
        """Delete the Job of an execution in the background."""
        target = Target(job_name(run_id, begun.call, begun.number), "", run_id, DISCARD_S, lambda: None)
        self._endings.begin(target)

    async def release(self, run_id: str) -> None:
        """Close the run's session, and remove the output of its programs."""
        if session := self._sessions.pop(run_id, None):
            await session.close()
        folder = self._folder / run_id
        if folder.exists():
            await asyncio.to_thread(remove_tree, folder)

    async def reap(self) -> int:
        """Delete the Jobs that no run owns any more; return their number. Raises ExecutorUnavailable."""
        return await self._reaper.reap()

    async def close(self) -> None:
        """Stop observing, and wait a moment for endings under way. Programs that run are left running."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._endings.settle(CLOSE_S)
        await self._api.close()

    def _begin(self) -> None:
        if not self._tasks:
            works: list[Coroutine[Any, Any, None]] = [
                self._observer.run(),
                self._reaper.run(),
                self._reaper.answer(),
            ]
            self._tasks = [asyncio.create_task(work) for work in works]

    def _proxy_of(self, command: Command) -> str:
        """Return the URL of the proxy of a command, empty for one without a network. Raises ExecutorUnavailable."""
        if not command.network:
            return ""
        if self._proxy_url is None:
            raise ExecutorUnavailable("programs have no network here, because the worker has no EGRESS_TOKEN_KEY")
        return self._proxy_url(command)

    def _output(self, command: Command) -> Path:
        folder = self._folder / command.run_id
        try:
            with translate_exhaustion():
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise ExecutorUnavailable(f"the scratch folder '{folder}' cannot be created: {exc.strerror}") from exc
        return folder

    async def _guarded(self, call: JobCall, command: Command, caller: ExecutionCaller, work: Awaitable[T]) -> T:
        """Await the work within the deadline of the worker; end the program if it is cancelled for good."""
        target = call.target()
        self._own.add(target.job)
        deadline = asyncio.timeout(deadlines(command.timeout_s).worker_s)
        try:
            async with deadline:
                return await work
        except TimeoutError:
            if not deadline.expired():
                raise
            raise NoResult("the pod neither ended nor answered within all of its deadlines") from None
        except asyncio.CancelledError:
            if caller.continues_elsewhere():
                # Unless it does not: the run may have been ended without this worker, because it was cancelled.
                self._own.discard(target.job)
                self._reaper.ask(command.run_id)
            else:
                await self._kill(call, caller)
            raise
        finally:
            self._own.discard(target.job)

    async def _kill(self, call: JobCall, caller: ExecutionCaller) -> None:
        if not await self._endings.begin(call.target()).confirmed(CANCEL_S):
            caller.warn(
                "the program could not be ended yet: neither its pod nor the cluster answers. The worker keeps trying; "
                "at the latest the program ends at its timeout"
            )
