"""Check of the executor: rights, Pod Security of the namespace, and an API server that is away."""

import pytest

from infra.contract.errors import ExecutorUnavailable
from tests.k8s_executor.rig import NAMESPACE, ClusterRig
from tests.support.kube import Deny, Fail


async def test_a_sound_cluster_passes_and_keeps_nothing(cluster: ClusterRig) -> None:
    await cluster.executor().check()
    assert cluster.jobs() == set()


@pytest.mark.parametrize(
    ("verb", "resource"),
    [
        ("create", "jobs"),
        ("get", "jobs"),
        ("list", "jobs"),
        ("delete", "jobs"),
        ("list", "pods"),
        ("watch", "pods"),
        ("list", "events"),
    ],
)
async def test_a_right_that_is_missing_is_named(cluster: ClusterRig, verb: str, resource: str) -> None:
    message = f'cannot {verb} resource "{resource}"'
    cluster.server.faults.add(Fail(403, message=message), verb, resource=resource)
    with pytest.raises(ExecutorUnavailable, match=message):
        await cluster.executor().check()


async def test_a_policy_that_refuses_the_job_is_named(cluster: ClusterRig) -> None:
    cluster.server.faults.add(Deny(message="the image is not allowed"), "create", resource="jobs")
    with pytest.raises(ExecutorUnavailable, match="the image is not allowed"):
        await cluster.executor().check()


async def test_an_api_server_that_is_down_is_reported(cluster: ClusterRig) -> None:
    cluster.server.faults.down = True
    with pytest.raises(ExecutorUnavailable, match="does not answer"):
        await cluster.executor(patience_s=0.2).check()


async def test_a_namespace_that_does_not_exist_is_named(cluster: ClusterRig) -> None:
    with pytest.raises(ExecutorUnavailable, match=f"404.*{NAMESPACE}-2"):
        await cluster.executor(namespace=f"{NAMESPACE}-2").check()
