"""Check of the executor: rights, Pod Security of the namespace, and an API server that is away."""

from contextlib import nullcontext

import pytest

from infra.contract.errors import ExecutorUnavailable
from infra.k8s_executor.job import SESSION, Manifest
from infra.k8s_executor.views import JobView
from tests.k8s_executor.rig import BROWSER_IMAGE, NAMESPACE, ClusterRig
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


@pytest.mark.parametrize("image", [BROWSER_IMAGE, None])
async def test_a_policy_that_refuses_the_job_of_a_browser_alone_is_named(
    cluster: ClusterRig, monkeypatch: pytest.MonkeyPatch, image: str | None
) -> None:
    executor = cluster.executor(session_image=image)
    create = executor._api.create_job

    async def create_job(manifest: Manifest, *, dry_run: bool) -> tuple[JobView, list[str]]:
        if manifest["metadata"]["labels"].items() >= SESSION.items():
            cluster.server.faults.add(Deny(message="not this browser"), "create", resource="jobs")
        return await create(manifest, dry_run=dry_run)

    monkeypatch.setattr(executor._api, "create_job", create_job)
    with pytest.raises(ExecutorUnavailable, match="not this browser") if image else nullcontext():
        await executor.check()


async def test_an_api_server_that_is_down_is_reported(cluster: ClusterRig) -> None:
    cluster.server.faults.down = True
    with pytest.raises(ExecutorUnavailable, match="does not answer"):
        await cluster.executor(patience_s=0.2).check()


async def test_a_namespace_that_does_not_exist_is_named(cluster: ClusterRig) -> None:
    with pytest.raises(ExecutorUnavailable, match=f"404.*{NAMESPACE}-2"):
        await cluster.executor(namespace=f"{NAMESPACE}-2").check()
