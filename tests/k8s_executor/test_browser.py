"""Runs with the tool `browser` whose Chromium is in a pod: the real tool, runner, egress proxy and object store."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.contract.runs import PlanStep
from infra.contract.states import Status
from infra.egress.settings import NetworkSettings
from infra.egress.tokens import EgressTokens
from infra.settings import RedisTcpSettings, S3Settings
from infra.workspace import Workspaces
from tests.browser_tool.site import BrowserSite, browser_site
from tests.chaos.processes import Process
from tests.k8s_executor.rig import ClusterRig
from tests.k8s_executor.test_runs import goes_on, has_no_pods, has_printed
from tests.k8s_executor.workers import WorkerRig
from tests.support.egress import EGRESS_KEY, egress_proxy
from tests.support.kube import KubeServer, kube_server
from tests.support.kube.worker_access import browser_image, worker_environment, write_kubeconfig
from tests.support.s3 import variables_of
from tests.support.waiting import until
from worker.browser.settings import BrowserSettings, installation
from worker.fetch.settings import FetchSettings
from worker.registry import registry

pytestmark = pytest.mark.skipif(
    installation() is None, reason="the program `chromium` is missing; install the Debian package `chromium`"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeServer]:
    folder = tmp_path_factory.mktemp("cluster")
    with kube_server(folder / "pods", browser_image(folder)) as made:
        yield made


@pytest.fixture(scope="module")
def site() -> Iterator[BrowserSite]:
    with browser_site() as running:
        yield running


@pytest.fixture
async def proxy(site: BrowserSite) -> AsyncIterator[str]:
    """Address of the egress proxy, which reaches the site."""
    async with egress_proxy(*_pair(site)) as port:
        yield f"127.0.0.1:{port}"


@pytest.fixture
async def runs(cluster: ClusterRig, tcp: RedisTcpSettings, proxy: str) -> AsyncIterator[WorkerRig]:
    tokens = EgressTokens(EGRESS_KEY)
    cluster.proxy_url = lambda command: tokens.proxy_url(proxy, command, int(time.time()) + 600)
    made = WorkerRig(cluster, tcp)
    yield made
    await made.close()


def _pair(site: BrowserSite) -> tuple[str, int]:
    host, _, port = site.host.rpartition(":")
    return host, int(port)


def step(action: str, **args: Any) -> PlanStep:
    return PlanStep(tool="browser", args={"action": action, **args})


async def test_a_run_reads_a_page_and_stores_files_of_it(
    runs: WorkerRig, site: BrowserSite, workspaces: Workspaces
) -> None:
    network = NetworkSettings(private_hosts=frozenset([_pair(site)]))
    runs.worker(tools=registry(FetchSettings(), network, BrowserSettings(place="image")))
    steps = [
        step("open", url=f"{site.url}/"),
        step("screenshot", save_as="page.png"),
        step("download", selector="#file", save_as="data.csv"),
        step("type", selector="input", text="löng" * 2_000),
        step("open", url=f"{site.url}/elsewhere"),
        step("extract"),
    ]
    run_id = await runs.submit(plan=steps)
    record = await runs.ended(run_id)
    assert record.status is Status.SUCCEEDED, record.error
    assert record.result
    last: Any = record.result["last"]
    assert (last["url"], last["title"]) == (f"{site.url}/elsewhere", "refused")
    files = workspaces.run("ada", run_id, 9, await runs.rig.store.files(run_id))
    assert (await files.read("page.png")).startswith(b"\x89PNG")
    assert await files.read("data.csv") == b"content"
    await has_no_pods(runs)


async def test_a_killed_worker_loses_the_session_and_its_pod_is_reaped(
    runs: WorkerRig, site: BrowserSite, proxy: str, tcp: RedisTcpSettings, s3: S3Settings, tmp_path: Path
) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    write_kubeconfig(kubeconfig, runs.cluster.server.url)
    environment = {
        **os.environ,
        **variables_of(s3),
        **worker_environment(kubeconfig),
        "REDIS_URL": tcp.url,
        "REDIS_KEY_PREFIX": runs.rig.store.keys.prefix,
        "WORKER_LEASE_S": "600",
        "WORKER_ROOT": str(tmp_path / "work"),
        "TOOLS_NETWORK_PRIVATE_HOSTS": site.host,
        "KUBERNETES_EGRESS": proxy,
        "EGRESS_TOKEN_KEY": EGRESS_KEY,
    }
    workers = [
        Process(name, [sys.executable, "-m", "worker"], environment | {"WORKER_NAME": name}, tmp_path / f"{name}.log")
        for name in ("first", "second")
    ]
    echoes = site.requests["/echo"]
    try:
        await asyncio.to_thread(workers[0].start)
        wait = PlanStep(tool="shell", args={"command": "echo one; while [ ! -e go ]; do sleep 0.05; done"})
        run_id = await runs.submit(
            plan=[step("open", url=f"{site.url}/"), wait, step("click", selector="button")], max_attempts=3
        )
        await has_printed(runs, run_id, 2)  # the URL, and a line of the program
        (session,) = (name for name in runs.cluster.jobs() if name.startswith("session-"))
        reaper = runs.executor(_installation(runs))
        assert await reaper.reap() == 0
        workers[0].send(signal.SIGKILL)
        await runs.rig.expire_lease(run_id)
        await asyncio.to_thread(workers[1].start)

        async def claimed() -> bool:
            return (await runs.rig.store.get(run_id)).fence == 2

        await until(claimed, "the next worker has the run", 60)
        # The second worker may have deleted it already: it looks for orphans when it connects.
        await reaper.reap()
        await until(lambda: _is_deleted(runs, session), "the session is deleted")
        await goes_on(runs)
        record = await runs.ended(run_id)
        assert record.error
        assert (record.error.code, record.error.step) == ("session_lost", 2)
        assert f"the last page was {site.url}/;" in record.error.message
        assert site.requests["/echo"] == echoes
        await has_no_pods(runs)
    finally:
        for worker in workers:
            await asyncio.to_thread(worker.end)


async def _is_deleted(runs: WorkerRig, job: str) -> bool:
    return job not in runs.cluster.jobs()


def _installation(runs: WorkerRig) -> str:
    (label,) = {
        job["metadata"]["labels"]["swissbrain-agent/installation"]
        for job in runs.cluster.server.objects("jobs", "agent-tools")
    }
    return str(label)
