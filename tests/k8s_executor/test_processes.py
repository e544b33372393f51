"""Worker processes with the executor for Kubernetes: killed, suspended past their leases, and without access."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from infra.contract.states import Status
from infra.settings import RedisTcpSettings, S3Settings
from tests.chaos.processes import Process
from tests.k8s_executor.rig import ClusterRig
from tests.k8s_executor.test_runs import goes_on, has_no_pods, has_printed
from tests.k8s_executor.workers import Counter, WorkerRig
from tests.support.kube.worker_access import worker_environment, write_kubeconfig
from tests.support.s3 import variables_of
from tests.support.waiting import until

STARTED_S = 60.0


@pytest.fixture
def environment(cluster: ClusterRig, tcp: RedisTcpSettings, s3: S3Settings, tmp_path: Path) -> dict[str, str]:
    """Variables of a worker process with a short lease."""
    kubeconfig = tmp_path / "kubeconfig"
    write_kubeconfig(kubeconfig, cluster.server.url)
    more = {"REDIS_URL": tcp.url, "WORKER_LEASE_S": "3", "WORKER_ROOT": str(tmp_path / "work")}
    return {**os.environ, **variables_of(s3), **worker_environment(kubeconfig), **more}


async def test_killed_and_suspended_workers_start_a_program_once(
    runs: WorkerRig, environment: dict[str, str], tmp_path: Path
) -> None:
    environment["REDIS_KEY_PREFIX"] = runs.rig.store.keys.prefix
    workers = [
        Process(name, [sys.executable, "-m", "worker"], environment | {"WORKER_NAME": name}, tmp_path / f"{name}.log")
        for name in ("first", "second")
    ]
    try:
        async with Counter().listening() as counter:
            await asyncio.to_thread(workers[0].start)
            run_id = await runs.submit(
                counter.program("echo one; while [ ! -e go ]; do sleep 0.05; done; echo two"), max_attempts=4
            )
            await has_printed(runs, run_id, 1)
            workers[0].send(signal.SIGSTOP)
            await asyncio.to_thread(workers[1].start)
            await fence(runs, run_id, 2)
            # The first one wakes up with a lease that is lost, and with a program that is not its own any more.
            workers[0].send(signal.SIGCONT)
            await asyncio.sleep(1)
            workers[1].send(signal.SIGKILL)
            await fence(runs, run_id, 3)
            await goes_on(runs)
            assert (await runs.ended(run_id)).status is Status.SUCCEEDED
            assert counter.count == 1
        assert await runs.output(run_id) == ["one", "two"]
        await has_no_pods(runs)
    finally:
        for worker in workers:
            worker.send(signal.SIGCONT)
            await asyncio.to_thread(worker.end)


async def fence(runs: WorkerRig, run_id: str, number: int) -> None:
    async def claimed() -> bool:
        return (await runs.rig.store.get(run_id)).fence >= number

    await until(claimed, f"the run was claimed {number} times", STARTED_S)


def test_a_wrong_setting_ends_the_worker_with_one_line(environment: dict[str, str]) -> None:
    changed = environment | {"KUBECONFIG": "/nonexistent"}
    ended = subprocess.run([sys.executable, "-m", "worker"], env=changed, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1
    assert "KUBECONFIG must be the path of one file that exists" in ended.stderr
