"""Session in a separate pod: a Job that answers the requests of one worker, and is never adopted by another one.

If the worker is lost, the pod gets no sign of life and ends after SILENCE_S. The reaper of any other worker deletes the
Job once the run has a new claim, or none.
"""

import asyncio
import hashlib
import secrets
from contextlib import ExitStack

from infra.contract.errors import ExecutorUnavailable, SessionLost
from infra.contract.execution import Command
from infra.k8s_executor.control import PodControl, PodUnreachable
from infra.k8s_executor.deadlines import deadlines
from infra.k8s_executor.endings import Endings, Target
from infra.k8s_executor.job import DIGEST_NAME, session_job, session_name
from infra.k8s_executor.observer import Observed
from infra.k8s_executor.pod_session import PodSessionClient
from infra.k8s_executor.running_pod import (
    Cluster,
    create,
    hang_up_after_end,
    has_ended,
    reason_of_end,
    started,
    until_runner,
)
from infra.k8s_executor.stored_call import NoResult

CANCEL_S = 5.0
"""Time for ending a program before the end of its session completes without a confirmation."""


class JobSession:
    """Implements the port `Session`. `own` holds the names of the Jobs that the reaper leaves alone."""

    def __init__(
        self, cluster: Cluster, endings: Endings, own: set[str], command: Command, fence: int, max_reply_bytes: int
    ) -> None:
        self._cluster = cluster
        self._endings = endings
        self._own = own
        self._command = command
        self._fence = fence
        self._max_reply_bytes = max_reply_bytes
        self._name = session_name()
        self._token = secrets.token_hex(32)
        self._uid = ""
        self._address = ""
        self._observing = ExitStack()
        self._observed = Observed()
        self._client: PodSessionClient | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._closing: asyncio.Task[None] | None = None
        own.add(self._name)

    async def begin(self, proxy_url: str) -> None:
        """Create the Job, wait for its pod, and start the program; close the session if that fails.

        Raises ExecutorUnavailable, HostExhausted, LimitExceeded.
        """
        try:
            await self._create()
            self._observed = self._observing.enter_context(self._cluster.observer.observing(self._uid))
            await until_runner(self._cluster, self._observed, self._name, self._uid)
            self._client = await self._open(proxy_url)
            self._tasks.append(asyncio.create_task(self._client.keep()))
        except NoResult as error:
            await self.close()
            raise error.failure from error
        except BaseException:
            await self.close()
            raise

    async def ask(self, request: bytes, timeout_s: float) -> bytes:
        """See the port."""
        try:
            if self._client is None or self._closing:
                raise SessionLost("it was closed")
            async with asyncio.timeout(timeout_s):
                return await self._client.ask(request)
        except TimeoutError:
            await self.close()
            raise SessionLost(f"it did not answer within {timeout_s:g} s") from None
        except PodUnreachable as error:
            reason = await reason_of_end(self._cluster, self._observed, self._name)
            await self.close()
            raise SessionLost(str(reason or "its pod was ended from outside")) from error
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """End the program and delete the Job. Return once the program is dead, or after CANCEL_S; never raises.

        What is not confirmed by then is repeated in the background, and ends at the latest when the pod hears nothing.
        """
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        cancelled = False
        while not self._closing.done():
            try:
                await asyncio.shield(self._closing)
            except asyncio.CancelledError:
                cancelled = True
        if cancelled:
            raise asyncio.CancelledError

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        bound_s = deadlines(self._command.timeout_s).worker_s
        target = Target(self._name, self._uid, self._command.run_id, bound_s, self._control)
        await self._endings.begin(target).confirmed(CANCEL_S)
        self._observing.close()
        self._own.discard(self._name)

    async def _create(self) -> None:
        token_sha256 = hashlib.sha256(self._token.encode()).hexdigest()
        manifest = session_job(self._cluster.profile, self._command, self._fence, self._name, token_sha256)
        made = await create(self._cluster.api, manifest)
        if made.variable(DIGEST_NAME) != token_sha256:
            raise ExecutorUnavailable(f"the Job {self._name} belongs to something else; delete it")
        self._uid = made.metadata.uid

    async def _open(self, proxy_url: str) -> PodSessionClient:
        """Start the program in the pod that runs. Raises SessionRefused, NoResult."""
        pod = self._observed.pod
        self._address = (pod.status.pod_ip if pod else None) or ""
        control = PodControl(self._address, self._cluster.port, self._token)
        self._tasks.append(asyncio.create_task(hang_up_after_end(control, self._observed)))
        client = PodSessionClient(control, self._max_reply_bytes, lambda: has_ended(self._observed))
        if await started(self._cluster, self._observed, lambda: client.open(self._name, self._command, proxy_url)):
            return client
        reason = await reason_of_end(self._cluster, self._observed, self._name)
        raise NoResult(str(reason or "the pod ended before its program was started"), reason)

    def _control(self) -> PodControl | None:
        return PodControl(self._address, self._cluster.port, self._token) if self._address else None
