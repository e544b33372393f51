"""Fixtures: a Kubernetes API server whose kubelet runs the real runner, and a real S3 server."""

from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest

from infra.pod_runner import archive
from infra.settings import RedisTcpSettings
from infra.workspace import Workspaces
from tests.k8s_executor.rig import NAMESPACE, ClusterRig
from tests.k8s_executor.workers import WorkerRig
from tests.support.kube import KubeServer, kube_server
from tests.support.kube.deletion import DeleteOptions, delete
from tests.support.kube.job_controller import Delays
from tests.support.servers import s3_fixture, valkey_fixture, workspaces_fixture
from tests.support.waiting import until

s3 = s3_fixture("package")
tcp = valkey_fixture()


workspaces = workspaces_fixture("package")


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeServer]:
    folder = tmp_path_factory.mktemp("cluster")
    archive.write(folder / "runner.pyz")
    with kube_server(folder / "pods", {"/opt/swissbrain/runner.pyz": folder / "runner.pyz"}) as made:
        yield made


@pytest.fixture
async def cluster(server: KubeServer, workspaces: Workspaces, tmp_path: Path) -> AsyncIterator[ClusterRig]:
    made = ClusterRig(server, workspaces, tmp_path)
    yield made
    server.faults.heal()
    vars(server.delays).update(vars(Delays()))
    await made.close()
    for job in made.jobs():
        server.call(partial(delete, server.store, "jobs", (NAMESPACE, job), DeleteOptions("Background")))
    await until(made.is_empty, "no pod is left")


@pytest.fixture
async def runs(cluster: ClusterRig, tcp: RedisTcpSettings) -> AsyncIterator[WorkerRig]:
    made = WorkerRig(cluster, tcp)
    yield made
    await made.close()
