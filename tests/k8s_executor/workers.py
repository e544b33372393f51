"""Workers of a queue whose programs run on a cluster, and their deaths at chosen moments."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from kubernetes.aio.client.configuration import Configuration

from infra.contract.redis import Redis
from infra.contract.runs import RunRecord
from infra.k8s_executor.api import KubeApi
from infra.k8s_executor.executor import KubernetesExecutor
from infra.k8s_executor.job import JobProfile
from infra.k8s_executor.views import JobView
from infra.settings import RedisTcpSettings
from tests.agent_runs.killing import Deadly
from tests.k8s_executor.rig import BROWSER_IMAGE, IMAGE, NAMESPACE, ClusterRig
from tests.support.connections import closed_after
from tests.worker.rig import Identity, Rig, Worker
from worker.lease import StopReason
from worker.plan import PlanWalker
from worker.registry import REGISTRY
from worker.run.strategy import Strategy
from worker.toolkit.base import Tool


@dataclass(frozen=True)
class Death:
    """Moment at which a worker dies: before or after the write of a journal key, or a call to the cluster."""

    at: str
    when: str

    def __str__(self) -> str:
        return f"{self.when} {self.at}"


class DyingApi(KubeApi):
    """API client of a worker that dies before or after it creates a Job."""

    death: Death | None = None
    dead: asyncio.Event

    async def create_job(self, manifest: Any, *, dry_run: bool = False) -> tuple[JobView, list[str]]:
        await self._die("before")
        made = await super().create_job(manifest, dry_run=dry_run)
        await self._die("after")
        return made

    async def _die(self, when: str) -> None:
        if self.death == Death("create", when):
            self.dead.set()
            await asyncio.Event().wait()


@dataclass
class ClusterWorker:
    """Worker of a queue with its executor. `dead` is set once it has reached its death."""

    worker: Worker
    executor: KubernetesExecutor
    identity: Identity
    deadly: Deadly
    dead: asyncio.Event

    async def die(self) -> None:
        """Stop as after `kill -9`: nothing more is written or ended."""
        for active in self.worker.keeper.runs():
            active.stop_reason = StopReason.LOST
        self.deadly.dead.set()
        self.deadly.buried.set()
        await self.worker.killed()
        await self.executor.close()


class WorkerRig:
    """Queue of its own, with workers on a cluster."""

    def __init__(self, cluster: ClusterRig, tcp: RedisTcpSettings) -> None:
        self.cluster = cluster
        self.rig = Rig(tcp, prefix=f"{uuid.uuid4().hex}:")
        self.installation = self.rig.store.keys.prefix[:16]
        self._executors: list[KubernetesExecutor] = []

    def worker(
        self,
        death: Death | None = None,
        *,
        after: ClusterWorker | None = None,
        idempotent: bool = True,
        strategy: Strategy | None = None,
        tools: Mapping[str, Tool] | None = None,
        **more: Any,
    ) -> ClusterWorker:
        """Start a worker, which knows that the worker `after` is dead."""
        api = DyingApi(Configuration(host=self.cluster.server.url), NAMESPACE)
        api.death, api.dead = death, asyncio.Event()
        executor = self.executor(self.installation, api)
        tools = tools or dict(REGISTRY) | {"shell": replace(REGISTRY["shell"], idempotent=idempotent)}
        identity = Identity(*([after.identity.process] if after else []))
        deadly: list[Deadly] = []

        def around(redis: Redis) -> Redis:
            at, when = (death.at, death.when) if death else ("", "before")
            deadly.append(Deadly(redis, at, when))  # type: ignore[arg-type]
            return deadly[0]

        worker = self.rig.worker(
            strategy=strategy or PlanWalker(tools),
            workspaces=self.cluster.workspaces,
            executor=executor,
            identity=identity,
            around=around,
            **more,
        )
        return ClusterWorker(worker, executor, identity, deadly[0], api.dead)

    def executor(self, installation: str, api: KubeApi | None = None) -> KubernetesExecutor:
        """Return an executor that knows the runs of the queue."""
        api = api or KubeApi(Configuration(host=self.cluster.server.url), NAMESPACE)
        profile = JobProfile(NAMESPACE, IMAGE, installation=installation, session_image=BROWSER_IMAGE)
        folder, store = self.cluster.folder / uuid.uuid4().hex, self.rig.store
        made = KubernetesExecutor(
            api, profile, folder, store.open_execution, store.running_fence, self.cluster.proxy_url
        )
        self._executors.append(made)
        return made

    async def dies(self, worker: ClusterWorker) -> None:
        """Wait until a worker has reached its death, and let it die."""
        waits = [asyncio.ensure_future(event.wait()) for event in (worker.dead, worker.deadly.dead)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED, timeout=60)
        for wait in waits:
            wait.cancel()
        assert worker.dead.is_set() or worker.deadly.dead.is_set(), "the worker has not reached its death"
        await worker.die()

    async def submit(self, *commands: str, **spec: Any) -> str:
        """Create a run with one step for each command."""
        return await self.rig.submit(*commands, **spec)

    async def ended(self, run_id: str) -> RunRecord:
        """Return the record of a run once it has ended."""
        return await self.rig.ended(run_id)

    async def output(self, run_id: str) -> list[str]:
        """Return the lines of output in the log of a run."""
        return [event.data["text"] for event in await self.rig.log(run_id) if event.type == "tool.output"]

    async def close(self) -> None:
        """Stop everything."""
        await self.rig.close()
        for executor in self._executors:
            await executor.close()


class Counter:
    """Server that counts connections: side effects of programs outside of their pods."""

    def __init__(self) -> None:
        self.count = 0
        self.port = 0

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Counter"]:
        """Listen within the context."""

        async def connected(*_: object) -> None:
            self.count += 1

        server = await asyncio.start_server(closed_after(connected), "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            await server.wait_closed()

    def program(self, then: str) -> str:
        """Return a program that connects once, then does something else."""
        return f"bash -c ': > /dev/tcp/127.0.0.1/{self.port}'; {then}"
