"""API server with its controllers and a kubelet, on loopback, in one thread."""

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import uvicorn

from tests.support.kube.access import Access
from tests.support.kube.api import Api
from tests.support.kube.container import Image
from tests.support.kube.deletion import DeleteOptions, collect_garbage, delete
from tests.support.kube.errors import Obj
from tests.support.kube.events import Events
from tests.support.kube.faults import Faults
from tests.support.kube.job_controller import Delays, JobController
from tests.support.kube.kubelet import Kubelet, RunningPod
from tests.support.kube.reading import Reader
from tests.support.kube.store import Store
from tests.support.kube.watching import Watches
from tests.support.kube.workload_controller import WorkloadController
from tests.support.kube.writing import Writer, disrupt

Result = TypeVar("Result")
UNREACHABLE_S, TOLERATION_S = 40.0, 300.0
"""Times after which the pods of a lost node are reported as not ready, and are deleted."""


@dataclass
class KubeServer:
    """Running server. All methods may be called from any thread; `faults` and `delays` take effect immediately."""

    url: str
    faults: Faults
    delays: Delays
    access: Access
    api: Api
    watches: Watches
    store: Store
    kubelet: Kubelet
    loop: asyncio.AbstractEventLoop

    def call(self, action: Callable[[], Result]) -> Result:
        """Return the result of a call in the thread of the server, where its objects may be read and changed."""

        async def run() -> Result:
            return action()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(60)

    def objects(self, plural: str, namespace: str = "") -> list[Obj]:
        """Return the objects of a resource."""
        return self.call(lambda: self.store.all(plural, namespace))

    def advance(self, seconds: float) -> None:
        """Move the clock of the cluster: deadlines, grace periods, TTLs. Programs notice nothing."""
        self.call(lambda: self.store.advance(seconds))

    def compact(self) -> None:
        """Forget old versions: watches and pages from them get 410."""
        self.call(self.store.compact)

    def cut_watches(self) -> None:
        """Close the connections of all watches."""
        self.call(self.watches.cut_all)

    def running(self, job: str) -> RunningPod:
        """Return the pod of a Job on the node. Raises LookupError."""
        return self.call(lambda: self._running(job))

    def evict(self, job: str, message: str = "The node was low on resource: ephemeral-storage.") -> None:
        """Evict the pod of a Job as a node under pressure does: without a grace period."""
        self._change(job, lambda pod: setattr(pod, "evicted", message))

    def preempt(self, job: str) -> None:
        """Delete the pod of a Job for one with a higher priority, with its grace period."""

        def change(pod: RunningPod) -> None:
            disrupt(self.store, pod.key, "PreemptionByScheduler", "preempting to accommodate a higher priority pod")
            delete(self.store, "pods", pod.key, DeleteOptions())

        self._change(job, change)

    def lose_node(self, job: str, *, dead: bool = False) -> None:
        """Disconnect the node of a Job's pod: no status, no orders, no answer at its address.

        The program keeps running and reaches everything else, unless the node is `dead`. The pod stays `Running`, is
        not ready after 40 s and marked as deleted after 5 minutes of the cluster's clock; it stays all the same.
        """

        def change(pod: RunningPod) -> None:
            pod.lost = pod.network.silent = True
            if dead and pod.container:
                pod.container.kill()
            self._tasks.append(self.loop.create_task(self._notice_loss(pod)))

        self._change(job, change)

    def restore_node(self, job: str) -> None:
        """Connect the node again: its kubelet reports, and gets its orders."""

        def change(pod: RunningPod) -> None:
            pod.lost = pod.network.silent = False

        self._change(job, change)

    def remove_node(self, job: str) -> None:
        """Remove the lost node of a Job's pod from the cluster: its pod is deleted by force."""

        def change(pod: RunningPod) -> None:
            disrupt(self.store, pod.key, "DeletionByPodGC", "PodGC: node no longer exists")
            self.store.update("pods", pod.key, lambda new: new["status"].update(phase="Failed"))
            delete(self.store, "pods", pod.key, DeleteOptions(grace_s=0))

        self._change(job, change)

    def __post_init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def _running(self, job: str) -> RunningPod:
        for pod in self.kubelet.pods.values():
            found = self.store.find("pods", *pod.key)
            if found and found["metadata"]["labels"].get("batch.kubernetes.io/job-name") == job:
                return pod
        raise LookupError(f"no pod of the Job {job} is on the node")

    def _change(self, job: str, change: Callable[[RunningPod], Any]) -> None:
        def run() -> None:
            change(self._running(job))
            self.store.wake()

        self.call(run)

    async def _notice_loss(self, pod: RunningPod) -> None:
        began_s = self.store.now()
        for after_s in (UNREACHABLE_S, TOLERATION_S):
            if await self.store.wait(lambda: not pod.lost, began_s + after_s):
                return
            if self.store.find("pods", *pod.key) is None:
                return
            if after_s == UNREACHABLE_S:
                self.store.update("pods", pod.key, _not_ready)
                continue
            text = "Taint manager: deleting due to NoExecute taint"
            disrupt(self.store, pod.key, "DeletionByTaintManager", text)
            delete(self.store, "pods", pod.key, DeleteOptions())


def _not_ready(pod: Obj) -> None:
    for condition in pod["status"].get("conditions", []):
        if condition["type"] == "Ready":
            condition |= {"status": "False", "reason": "NodeNotReady"}


@contextmanager
def kube_server(
    folder: Path, image: Image | None = None, namespaces: tuple[str, ...] = ("agent-tools",)
) -> Iterator[KubeServer]:
    """Run a server. `folder` is for the pods; `image` has the files that every container sees, by their paths.

    The namespaces, except `default`, enforce the Pod Security level `restricted`.
    """
    listening = socket.create_server(("127.0.0.1", 0))
    started: list[KubeServer] = []
    ready, stopping = threading.Event(), threading.Event()

    def run() -> None:
        asyncio.run(_serve(folder, image or {}, listening, started, ready, stopping))

    thread = threading.Thread(target=run, name="kube-server")
    thread.start()
    ready.wait(60)
    server = started[0]
    for name in ("default", *namespaces):
        labels = {"pod-security.kubernetes.io/enforce": "restricted"} if name != "default" else {}
        namespace = {"metadata": {"name": name, "labels": labels}, "status": {"phase": "Active"}}
        server.call(lambda made=namespace: server.store.create("namespaces", made))  # type: ignore[misc]
    try:
        yield server
    finally:
        stopping.set()
        server.loop.call_soon_threadsafe(server.store.wake)
        thread.join()
        listening.close()


async def _serve(
    folder: Path,
    image: Image,
    listening: socket.socket,
    started: list[KubeServer],
    ready: threading.Event,
    stopping: threading.Event,
) -> None:
    store, faults, delays, access = Store(), Faults(), Delays(), Access()
    events = Events(store)
    jobs = JobController(store, faults, delays, events)
    kubelet = Kubelet(store, delays, events, jobs.faults_of, folder, image)
    watches = Watches(store, faults)
    api = Api(store, faults, access, watches, Reader(store, faults, kubelet), Writer(store))
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    server = KubeServer(url, faults, delays, access, api, watches, store, kubelet, asyncio.get_running_loop())
    # A connection that a fault cuts is an error for uvicorn, which logs it.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    config = uvicorn.Config(
        api,
        http="h11",
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=1,
    )
    http = uvicorn.Server(config)
    controllers = [
        asyncio.ensure_future(task)
        for task in (
            jobs.run(),
            WorkloadController(store, faults).run(),
            kubelet.run(),
            collect_garbage(store, delays.garbage_s),
            http.serve([listening]),
        )
    ]
    started.append(server)
    ready.set()
    ended = asyncio.ensure_future(store.wait(stopping.is_set))
    # A controller that fails must fail the test, instead of leaving it without a cluster.
    await asyncio.wait({ended, *controllers}, return_when=asyncio.FIRST_COMPLETED)
    watches.closing = True
    store.wake()
    http.should_exit = True
    await asyncio.wait({controllers[-1]}, timeout=10)
    kubelet.stop()
    failures = [task.exception() for task in controllers[:-1] if task.done()]
    for task in [*controllers, *server._tasks]:
        task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await task
    for failure in filter(None, failures):
        raise failure
