"""Cluster for workers with the executor for Kubernetes: the test API server behind a proxy, its faults, its checks."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import TypeAlias, TypeVar

from infra.pod_runner.__main__ import NOT_STORED
from tests.chaos.plans import BEGUN, KINDS, Kind
from tests.chaos.proxy import HOST, Proxy, ProxyHost
from tests.support.kube import Cut, Delay, Deny, Fail, KubeServer, PodFault, kube_server
from tests.support.kube.faults import Effect
from tests.support.kube.kubelet import RunningPod
from tests.support.kube.worker_access import tools_image, worker_environment, write_kubeconfig

NAMESPACE = "agent-tools"
REAPED_S = 4.0
"""Mean interval of the reapers, a minute in the product."""
SKIPPED_S, MOST_SKIPPED_S = 5.0, 120.0
"""Time that is skipped at each look at what is left, and in all in one round."""
DENIED_S = 0.4
"""Longest admission refusal. A run fails after five refusals in a row, and no longer one says that it passes."""
CALL = ("swissbrain-agent/run-id", "swissbrain-agent/call", "swissbrain-agent/execution")

T = TypeVar("T")
After: TypeAlias = Callable[[float, Callable[[], None]], None]
"""Function that calls another one after some seconds."""


def _begins(kind: Kind) -> Kind:
    plan = [
        {**step, "args": {**step["args"], "command": f"echo {BEGUN}; {step['args']['command']}"}}
        if step["tool"] == "shell"
        else step
        for step in kind.plan
    ]
    return Kind(**{**vars(kind), "plan": plan})


CLUSTER_KINDS = tuple(_begins(kind) for kind in KINDS if kind.name != "slow effects")


class ChaosCluster:
    """Cluster with a proxy between the workers and the API server. `disrupted` holds the uids of pods it took away."""

    def __init__(self, server: KubeServer, proxy: Proxy, kubeconfig: Path) -> None:
        self.server = server
        self.proxy = proxy
        self.disrupted: set[str] = set()
        self._skipped_s = 0.0
        self.environment = {
            **worker_environment(kubeconfig),
            "CHAOS_REAPED_S": str(REAPED_S),
        }

    def heal(self) -> None:
        """End all faults."""
        self._skipped_s = 0.0
        self.server.faults.heal()
        for pod in self._running():
            if pod.lost or pod.network.silent:
                self.server.restore_node(pod.job)

    def pids(self) -> set[int]:
        """Return the processes of containers, which belong to the server and not to a worker."""

        def found() -> set[int]:
            return {pod.container.process.pid for pod in self.server.kubelet.pods.values() if pod.container}

        return self.server.call(found)

    def leftovers(self) -> list[str]:
        """List the Jobs and pods that must not exist once all runs have ended."""
        # A runner that is told to end while it starts does not notice, and is killed after its grace period: such
        # periods need not be waited for. All deadlines are longer than what is skipped here.
        if self._skipped_s < MOST_SKIPPED_S:
            self._skipped_s += SKIPPED_S
            self.server.advance(SKIPPED_S)
        return [
            f"{plural} {obj['metadata']['name']} still exists"
            for plural in ("jobs", "pods")
            for obj in self.server.objects(plural, NAMESPACE)
        ]

    def violations(self, runs: set[str]) -> list[str]:
        """List the calls of these runs whose program was started twice, unless the cluster took the first one away."""
        starts: dict[tuple[str, str], list[str]] = defaultdict(list)
        for pod in self.server.call(lambda: list(self.server.kubelet.pods.values())):
            run_id, call, number = (pod.annotations[name] for name in CALL)
            if run_id not in runs or pod.uid in self.disrupted or not pod.container or not _has_begun(pod):
                continue
            # The pod could not store what its program has done, so the program counts as not executed.
            if pod.container.exit_code != NOT_STORED:
                starts[run_id, call].append(f"{number} with exit code {pod.container.exit_code}")
        return [f"{run} {call} was started as executions {found}" for (run, call), found in starts.items() if found[1:]]

    def faults(self, random: Random, after: After) -> dict[str, Callable[[], None]]:
        """Return the faults by name. `after` schedules the end of a fault that lasts."""
        server = self.server

        def requests(effect: Effect, chance: float, *verbs: str, seconds: tuple[float, float] = (0.5, 4.0)) -> None:
            fault = server.faults.add(effect, *verbs, chance=chance)
            after(random.uniform(*seconds), lambda: _remove(server.faults.requests, fault))

        def attribute(name: str, value: object, end: object) -> None:
            setattr(server.faults, name, value)
            after(random.uniform(0.5, 4.0), lambda: setattr(server.faults, name, end))

        def pods(fault: PodFault) -> None:
            server.faults.add_pod(fault)
            after(random.uniform(0.5, 4.0), lambda: _remove(server.faults.pods, fault))

        return {
            "kubernetes: latency": lambda: requests(Delay(random.uniform(0.2, 2.0)), 0.7),
            "kubernetes: 500": lambda: requests(Fail(500), 0.6),
            "kubernetes: 429": lambda: requests(Fail(429, retry_after_s=1), 0.7),
            "kubernetes: 504": lambda: requests(Fail(504), 0.5, "list", "watch", "create"),
            "kubernetes: connections cut": lambda: requests(Cut("before"), 0.5),
            "kubernetes: answers lost": lambda: requests(Cut("after"), 0.5, "create", "delete"),
            "kubernetes: admission refusal": lambda: requests(Deny(), 1.0, "create", seconds=(0.05, DENIED_S)),
            "kubernetes: watches cut": server.cut_watches,
            "kubernetes: old versions forgotten": server.compact,
            "kubernetes: watches end with 410": lambda: attribute("gone_chance", 1.0, 0.0),
            "kubernetes: stale reads": lambda: attribute("stale_s", random.uniform(0.5, 5.0), 0.0),
            "kubernetes: watches lag": lambda: attribute("watch_lag_s", random.uniform(0.5, 3.0), 0.0),
            "kubernetes: down": lambda: attribute("down", True, False),
            "kubernetes: pods start late": lambda: pods(PodFault(start_s=random.uniform(0.5, 3.0))),
            "kubernetes: no node": lambda: pods(PodFault(waiting="ContainerCreating", start_s=3.0)),
            "pod: evicted": lambda: self._take(random, lambda pod: server.evict(pod.job)),
            "pod: preempted": lambda: self._take(random, lambda pod: server.preempt(pod.job)),
            "pod: network cut": lambda: self._to_some(random, lambda pod: server.call(pod.network.cut)),
            "pod: node silent": lambda: self._to_some(random, lambda pod: self._silence(random, pod, after)),
        }

    def _running(self) -> list[RunningPod]:
        def found() -> list[RunningPod]:
            pods = self.server.kubelet.pods.values()
            return [pod for pod in pods if pod.container and pod.container.exit_code is None]

        return self.server.call(found)

    def _to_some(self, random: Random, action: Callable[[RunningPod], None]) -> None:
        if running := self._running():
            with suppress(LookupError):  # it has ended
                action(random.choice(running))

    def _take(self, random: Random, action: Callable[[RunningPod], None]) -> None:
        def take(pod: RunningPod) -> None:
            self.disrupted.add(pod.uid)
            action(pod)

        self._to_some(random, take)

    def _silence(self, random: Random, pod: RunningPod, after: After) -> None:
        def restore() -> None:
            with suppress(LookupError):
                self.server.restore_node(pod.job)

        self.server.lose_node(pod.job)
        after(random.uniform(0.5, 6.0), restore)


def _remove(faults: list[T], fault: T) -> None:
    if fault in faults:  # all may have been ended meanwhile
        faults.remove(fault)


def _has_begun(pod: RunningPod) -> bool:
    assert pod.container
    return any(f'"t": "{BEGUN}"' in line for line in pod.container.log.read_text(errors="replace").splitlines())


@contextmanager
def chaos_cluster(folder: Path, proxies: ProxyHost) -> Iterator[ChaosCluster]:
    """Run a cluster with its proxy."""
    folder.mkdir(parents=True, exist_ok=True)
    with kube_server(folder / "pods", tools_image(folder)) as server:
        proxy = proxies.proxy(int(server.url.rpartition(":")[2]))
        kubeconfig = folder / "kubeconfig"
        write_kubeconfig(kubeconfig, f"http://{HOST}:{proxy.port}")
        yield ChaosCluster(server, proxy, kubeconfig)
