"""Rig of the tests of the executor for Kubernetes: executors on one cluster, and runs that use them."""

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kubernetes.aio.client.configuration import Configuration

from infra.contract.execution import Command, Execution, LinePart
from infra.contract.lending import OpenExecution
from infra.k8s_executor.api import KubeApi
from infra.k8s_executor.executor import KubernetesExecutor
from infra.k8s_executor.job import JobProfile, job_name
from infra.workspace import S3RunFiles, Workspaces
from tests.support.caller import LoneCaller
from tests.support.kube import KubeServer
from tests.support.waiting import until

NAMESPACE = "agent-tools"
IMAGE = f"registry.example/tools@sha256:{'a' * 64}"
BROWSER_IMAGE = f"registry.example/tools-browser@sha256:{'b' * 64}"


@dataclass
class ClusterRig:
    """Cluster and the executors on it.

    `open_numbers` and `fences` are what the runs of the reaper's questions have open, and by whom they are worked on.
    """

    server: KubeServer
    workspaces: Workspaces
    folder: Path
    open_numbers: dict[str, int | None] = field(default_factory=dict)
    fences: dict[str, int] = field(default_factory=dict)
    proxy_url: Callable[[Command], str] | None = None
    _executors: list[KubernetesExecutor] = field(default_factory=list)

    def executor(self, *, patience_s: float = 20, **profile: Any) -> KubernetesExecutor:
        """Return an executor of a further worker process."""
        values = {"namespace": NAMESPACE, "image": IMAGE, "session_image": BROWSER_IMAGE} | profile
        api = KubeApi(Configuration(host=self.server.url), values["namespace"], patience_s)
        folder = self.folder / f"worker-{len(self._executors)}"

        async def open_number(run_id: str) -> int | None:
            return self.open_numbers.get(run_id)

        async def fence(run_id: str) -> int | None:
            return self.fences.get(run_id)

        made = KubernetesExecutor(api, JobProfile(**values), folder, open_number, fence, self.proxy_url)
        self._executors.append(made)
        return made

    def run(self, executor: KubernetesExecutor | None = None) -> "LoneRun":
        """Return a new run."""
        return LoneRun(self, executor or self.executor(), f"run_{uuid.uuid4().hex}")

    def jobs(self) -> set[str]:
        """Return the names of the Jobs that exist."""
        return {job["metadata"]["name"] for job in self.server.objects("jobs", NAMESPACE)}

    async def is_empty(self) -> bool:
        """Return whether no pod exists."""
        return not self.server.objects("pods", NAMESPACE)

    async def close(self) -> None:
        """Close the executors."""
        for executor in self._executors:
            await executor.close()


@dataclass
class LoneRun:
    """Run with one call, without a queue. `lines` are those that were passed on."""

    cluster: ClusterRig
    executor: KubernetesExecutor
    run_id: str
    fence: int = 1
    caller: LoneCaller = field(default_factory=LoneCaller)
    lines: list[str] = field(default_factory=list)
    files: S3RunFiles = field(init=False)

    def __post_init__(self) -> None:
        self.files = self.cluster.workspaces.run("ada", self.run_id, self.fence, {})

    @property
    def begun(self) -> OpenExecution:
        """Execution that was recorded last."""
        return self.caller.recorded[-1]

    @property
    def job(self) -> str:
        """Name of the Job of that execution."""
        return job_name(self.run_id, self.begun.call, self.begun.number)

    def command(self, source: str, timeout_s: float = 60) -> Command:
        return Command(self.run_id, "step-0", "sh", source, timeout_s)

    async def execute(self, source: str, timeout_s: float = 60) -> Execution:
        """Execute a program."""
        command = self.command(source, timeout_s)
        return await self.executor.execute(command, self.files, self.add, self.caller)

    async def adopt(self, source: str) -> Execution | None:
        """Adopt the execution that was recorded last."""
        return await self.executor.adopt(self.command(source), self.begun, self.files, self.add, self.caller)

    async def start(self, source: str, timeout_s: float = 60, lines: int = 1) -> "asyncio.Task[Execution]":
        """Execute a program in a task; return the task once the program has printed some lines."""
        task = asyncio.create_task(self.execute(source, timeout_s))
        await self.printed(lines, task)
        return task

    async def printed(self, count: int, task: "asyncio.Task[Any] | None" = None) -> None:
        """Return once the program has printed some lines. Raises the error of the task that executes it."""

        async def enough() -> bool:
            if task and task.done():
                task.result()
            return len(self.lines) >= count

        await until(enough, f"{count} lines")

    def next_owner(self, executor: KubernetesExecutor | None = None) -> "LoneRun":
        """Return the run as its next owner has it."""
        made = LoneRun(self.cluster, executor or self.cluster.executor(), self.run_id, self.fence + 1)
        made.caller.recorded = list(self.caller.recorded)
        made.caller.number = self.caller.number + 1
        return made

    async def add(self, _: str, part: LinePart) -> bool:
        self.lines.append(part.text)
        return True
