"""Traps that were measured on a real cluster, as far as no other module has them.

| trap | test |
|---|---|
| a Job counts as complete seconds after its container has ended | here |
| lists and watches answer 410 and 504, or are cut; lists come in pages | here, `test_failures.py`, `test_observer.py` |
| the log of a container is rotated away, and mixes both streams | here |
| deleting a Job with the default policy leaves its pod running | `test_runs.py`, `test_unowned_runs.py` |
| the Job is accepted, and its pods are refused with an event alone (Pod Security, quota) | `test_failures.py` |
| the pod stays pending because of its image or configuration | `test_failures.py` |
| the deadline of a Job deletes the pod, with log and exit code | `tests/executors/test_job.py` (deadlines are nested) |
| an eviction looks like a killed program; a full volume evicts | `test_failures.py`, `tests/executors/test_limits.py` |
| a program that cannot be started ends with 128; a killed child is `OOMKilled` with exit code 0 | `test_failures.py` |
| a Job may complete without a stored result | `tests/executors/test_pod_calls.py` |
| a second Job of the same name is refused (409) | `test_runs.py`, `test_execution.py` |
| a finished Job is deleted by its TTL | `test_execution.py` |
| the token of the service account is replaced | `test_access.py` |
| who may create Jobs may read Secrets: namespaces, rights, admission | `tests/k8s` |
"""

import asyncio

import pytest

from infra.k8s_executor import api
from tests.k8s_executor.rig import NAMESPACE, ClusterRig
from tests.k8s_executor.test_execution import WAITING, goes_on, has_no_jobs
from tests.support.kube import Fail

LINES = [f"line {number}" for number in range(2000)]


async def test_the_end_of_the_container_counts_and_not_that_of_the_job(cluster: ClusterRig) -> None:
    cluster.server.delays.job_status_s = 600
    run = cluster.run()
    assert (await run.execute("echo once")).exit_code == 0
    (job,) = cluster.server.objects("jobs", NAMESPACE)
    assert "conditions" not in job["status"]


async def test_output_is_whole_although_the_log_of_the_container_is_rotated(cluster: ClusterRig) -> None:
    cluster.server.faults.log_bytes = 500
    run = cluster.run()
    ended = await run.execute("seq -f 'line %g' 0 1999; seq 3 >&2")
    assert (ended.stdout.read_text().splitlines(), ended.stderr.read_text()) == (LINES, "1\n2\n3\n")
    assert [line for line in run.lines if line.startswith("line")] == LINES
    assert not [request for request in cluster.server.api.requests if request[1] == "pods/log"]


async def test_lists_in_pages_and_overloaded_ones_miss_nothing(
    cluster: ClusterRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "PAGE", 1)
    cluster.server.faults.add(Fail(504), "list", resource="pods", times=2)
    cluster.server.faults.watch_s = (0.05, 0.3)
    executor = cluster.executor()
    runs = [cluster.run(executor) for _ in range(3)]
    tasks = [asyncio.create_task(run.execute(WAITING)) for run in runs]
    for run, task in zip(runs, tasks, strict=True):
        await run.printed(1, task)
        await goes_on(run)
    assert [(await task).exit_code for task in tasks] == [3, 3, 3]
    # No run has them open, so all of them are orphans.
    assert await cluster.executor().reap() == 3
    await has_no_jobs(cluster)
