"""One API server for all tests of it, and a client of it. Names of Jobs are unique to each test."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import pytest
from kubernetes import client
from kubernetes.watch import Watch

from tests.support.kube import KubeServer, kube_server
from tests.support.waiting import wait_until

NAMESPACE = "agent-tools"


@dataclass
class Cluster:
    """Server and clients of its API, whose types have every field as optional and so are left out here."""

    server: KubeServer
    jobs: Any
    core: Any
    leases: Any
    name: str = field(default_factory=lambda: f"job-{uuid4().hex[:12]}")

    @property
    def label(self) -> str:
        """Selector of the objects of this test."""
        return f"test={self.name}"

    def manifest(self, script: str = "exit 0", **spec: Any) -> dict[str, Any]:
        """Return a Job that the restricted profile allows; `spec` changes it, `pod` its pod."""
        container: dict[str, Any] = {
            "name": "tool",
            "image": "registry.example/tools:1",
            "command": ["sh", "-c", script],
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
        context = {"runAsNonRoot": True, "runAsUser": 12345, "seccompProfile": {"type": "RuntimeDefault"}}
        pod = {"restartPolicy": "Never", "securityContext": context, "containers": [container]} | spec.pop("pod", {})
        rule = {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
        labels = {"test": self.name}
        return {
            "metadata": {"name": self.name, "labels": labels},
            "spec": {
                "backoffLimit": 0,
                "podFailurePolicy": {"rules": [rule]},
                "template": {"metadata": {"labels": labels}, "spec": pod},
                **spec,
            },
        }

    def create(self, script: str = "exit 0", **spec: Any) -> Any:
        """Create a Job."""
        return self.jobs.create_namespaced_job(NAMESPACE, client.V1Job.from_dict(self.manifest(script, **spec)))

    def pods(self) -> list[Any]:
        """Return the pods of the test."""
        found: list[Any] = self.core.list_namespaced_pod(NAMESPACE, label_selector=self.label).items
        return found

    def pod(self, phase: str) -> Any:
        """Wait for the pod of the test in a phase."""
        wait_until(lambda: [pod.status.phase for pod in self.pods()] == [phase], f"the pod is {phase}")
        return self.pods()[0]

    def ended(self) -> Any:
        """Wait for the end of the container."""
        states: list[Any] = []

        def there() -> bool:
            statuses = [pod.status.container_statuses or [] for pod in self.pods()]
            states[:] = [status.state.terminated for found in statuses for status in found]
            return any(states)

        wait_until(there, "the container has ended")
        return states[0]

    def condition(self, kind: str) -> Any:
        """Wait for a condition of the Job."""
        found: list[Any] = []

        def there() -> bool:
            conditions = self.jobs.read_namespaced_job(self.name, NAMESPACE).status.conditions or []
            found[:] = [condition for condition in conditions if condition.type == kind]
            return bool(found)

        wait_until(there, f"the Job is {kind}")
        return found[0]

    def events(self) -> list[Any]:
        """Return the events about the objects of this test."""
        events = self.core.list_namespaced_event(NAMESPACE).items
        return [event for event in events if event.involved_object.name.startswith(self.name)]

    def watch(self, of: Any, **query: Any) -> Any:
        """Yield the events of a watch of a list."""
        watch: Any = Watch
        return watch().stream(of, NAMESPACE, **query)

    def log(self) -> bytes:
        """Return the log of the pod."""
        pod = self.pods()[0].metadata.name
        # Text that is not UTF-8 is an error for the client, unless it does not decode the text.
        answer = self.core.read_namespaced_pod_log(pod, NAMESPACE, _preload_content=False)
        data: bytes = answer.data
        return data


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeServer]:
    with kube_server(tmp_path_factory.mktemp("kube"), namespaces=(NAMESPACE, "agents")) as made:
        yield made


@pytest.fixture(scope="package")
def api(server: KubeServer) -> Iterator[client.ApiClient]:
    with client.ApiClient(client.Configuration(host=server.url)) as made:
        yield made


@pytest.fixture
def cluster(server: KubeServer, api: client.ApiClient) -> Iterator[Cluster]:
    made = Cluster(server, client.BatchV1Api(api), client.CoreV1Api(api), client.CoordinationV1Api(api))
    yield made
    server.faults.heal()
    server.access.users.clear()
    made.jobs.delete_collection_namespaced_job(NAMESPACE, label_selector=made.label, propagation_policy="Background")
    made.core.delete_collection_namespaced_pod(NAMESPACE, label_selector=made.label, grace_period_seconds=0)
