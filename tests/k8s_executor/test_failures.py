"""Failures of a cluster, one by one: which are the run's fault, which setting mends the others, what is tried again."""

import asyncio
import time

import pytest

from infra.contract.errors import ContractError, ExecutorUnavailable, HostExhausted, LimitExceeded
from infra.k8s_executor import control, running_pod
from tests.k8s_executor.rig import NAMESPACE, ClusterRig
from tests.k8s_executor.test_execution import WAITING, goes_on, has_no_jobs, vanishes
from tests.support.kube import Cut, Deny, Fail, PodFault
from tests.support.processes import processes_with
from tests.support.waiting import until

QUOTA = 'pods "x" is forbidden: exceeded quota: tools, requested: pods=1, used: pods=20, limited: pods=20'
SECURITY = 'pods "x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true'


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        (PodFault(failed_create=QUOTA), HostExhausted, "the quota of the tools' namespace has no room"),
        (PodFault(failed_create=SECURITY), ExecutorUnavailable, "the cluster refuses the pods of tools: .*PodSecurity"),
        (PodFault(waiting="ImagePullBackOff", message="not found"), ExecutorUnavailable, "not found.*KUBERNETES_IMAGE"),
        (
            PodFault(waiting="CreateContainerConfigError", message="no such secret"),
            ExecutorUnavailable,
            "no such secret",
        ),
        (PodFault(start_error=True), ExecutorUnavailable, "the runner cannot be started in the image"),
    ],
)
async def test_a_pod_that_cannot_run_is_reported_at_once_and_removed(
    cluster: ClusterRig, fault: PodFault, kind: type[ContractError], message: str
) -> None:
    cluster.server.faults.add_pod(fault)
    run = cluster.run()
    began = time.monotonic()
    with pytest.raises(kind, match=message):
        await run.execute("echo never")
    assert time.monotonic() - began < 60
    await has_no_jobs(cluster)
    # The next owner makes another one, because nothing of it has run.
    assert await run.next_owner().adopt("echo never") is None


async def test_a_result_counts_although_the_kernel_has_killed_a_process_of_the_pod(cluster: ClusterRig) -> None:
    cluster.server.faults.add_pod(PodFault(ends=("OOMKilled", 0)))
    run = cluster.run()
    assert (await run.execute("exit 9")).exit_code == 9


async def test_a_pod_that_the_kernel_kills_is_the_fault_of_its_program(cluster: ClusterRig) -> None:
    cluster.server.faults.add_pod(PodFault(ends=("OOMKilled", 137)))
    run = cluster.run()
    task = await run.start("echo up; sleep 1000")
    container = cluster.server.running(run.job).container
    assert container
    container.kill()
    with pytest.raises(LimitExceeded, match="OOMKilled"):
        await task


async def test_an_eviction_is_the_fault_of_the_node_except_for_a_full_volume(cluster: ClusterRig) -> None:
    for message, kind in (
        ("The node was low on resource: memory.", HostExhausted),
        ('Usage of EmptyDir volume "workspace" exceeds the limit "2Gi".', LimitExceeded),
    ):
        run = cluster.run()
        task = await run.start("echo up; sleep 1000")
        cluster.server.evict(run.job, message)
        with pytest.raises(kind, match=message[:20]):
            await task


async def test_a_lost_node_is_given_up_when_the_cluster_does(cluster: ClusterRig) -> None:
    run = cluster.run()
    task = await run.start("echo up; sleep 1000")
    cluster.server.lose_node(run.job, dead=True)
    cluster.server.remove_node(run.job)
    with pytest.raises(HostExhausted, match="gave up the pod"):
        await task


async def test_a_lost_node_that_stays_in_the_cluster_is_given_up_too(
    cluster: ClusterRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "SILENCE_S", 1.0)
    monkeypatch.setattr(running_pod, "GRACE_S", 0.5)
    monkeypatch.setattr(running_pod, "LOST_S", 0.5)
    run = cluster.run()
    task = await run.start("echo up; sleep 1000")
    cluster.server.lose_node(run.job, dead=True)
    cluster.server.advance(400)  # the cluster deletes the pod, but no kubelet confirms that
    with pytest.raises(HostExhausted, match="gave up the pod"):
        await task
    cluster.server.remove_node(run.job)


async def test_what_the_cluster_tries_again_by_itself_is_waited_for(cluster: ClusterRig) -> None:
    cluster.server.delays.pod_retry_s = 2.0
    conflict = 'Operation cannot be fulfilled on resourcequotas "tools": the object has been modified'
    for fault in (
        PodFault(waiting="ErrImagePull", message="unexpected status: 503 Service Unavailable", start_s=1.0, times=1),
        PodFault(failed_create=conflict, times=1),
    ):
        cluster.server.faults.add_pod(fault)
        run = cluster.run()
        await run.execute("echo once")
        assert run.lines == ["once"]


async def test_a_program_on_a_node_that_comes_back_is_followed_on(cluster: ClusterRig) -> None:
    run = cluster.run()
    task = await run.start(WAITING)
    cluster.server.lose_node(run.job)
    await goes_on(run)
    await asyncio.sleep(1)
    cluster.server.restore_node(run.job)
    assert (await task).exit_code == 3
    assert run.lines[0] == "up"
    assert sorted(run.lines[1:]) == ["end", "oops"]


async def test_errors_of_the_api_server_are_waited_out(cluster: ClusterRig) -> None:
    faults = cluster.server.faults
    faults.add(Fail(429, retry_after_s=1), "create", resource="jobs", times=1)
    faults.add(Fail(500), "create", resource="jobs", times=1)
    faults.add(Fail(409), "create", resource="jobs", times=1)
    faults.add(Cut("before"), "list", "watch", resource="pods", times=3)
    run = cluster.run()
    ended = await run.execute("echo once")
    assert (ended.exit_code, run.lines) == (0, ["once"])


async def test_a_job_whose_creation_was_not_answered_is_found_again(cluster: ClusterRig) -> None:
    cluster.server.faults.add(Cut("after"), "create", resource="jobs", times=1)
    run = cluster.run()
    ended = await run.execute("echo once")
    assert (ended.exit_code, run.lines) == (0, ["once"])
    assert len(cluster.server.objects("pods", NAMESPACE)) == 1


async def test_a_refused_job_is_an_error_that_names_the_policy(cluster: ClusterRig) -> None:
    cluster.server.faults.add(Deny(), "create", resource="jobs")
    with pytest.raises(ExecutorUnavailable, match=r"refused a request with 422 Invalid.*the image is not allowed"):
        await cluster.run().execute("echo never")


async def test_watches_that_lag_expire_or_are_cut_lose_nothing(cluster: ClusterRig) -> None:
    faults = cluster.server.faults
    faults.watch_s, faults.gone_chance, faults.watch_lag_s = (0.05, 0.3), 0.5, 0.1
    run = cluster.run()
    task = await run.start(WAITING)
    cluster.server.compact()
    cluster.server.cut_watches()
    await goes_on(run)
    assert (await task).exit_code == 3


async def test_a_program_ends_while_the_api_server_is_down(cluster: ClusterRig) -> None:
    run = cluster.run()
    task = await run.start(WAITING)
    cluster.server.faults.down = True
    await goes_on(run)
    assert (await task).exit_code == 3


async def test_a_program_is_cancelled_by_the_way_that_is_left(cluster: ClusterRig) -> None:
    for way in ("control port", "API server"):
        run = cluster.run()
        task = await run.start(f"echo up; sh -c 'sleep 1000; :' {run.run_id}")
        if way == "control port":
            cluster.server.faults.down = True
        else:
            cluster.server.running(run.job).network.silent = True
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        async def dead(run_id: str = run.run_id) -> bool:
            return not processes_with(run_id)

        await until(dead, f"the program is ended by the {way}", timeout_s=25)
        assert run.caller.warnings == []
        cluster.server.faults.heal()
        await has_no_jobs(cluster)


async def test_a_cancellation_that_reaches_nobody_is_reported_and_repeated(cluster: ClusterRig) -> None:
    run = cluster.run()
    task = await run.start(f"echo up; sh -c 'sleep 1000; :' {run.run_id}")
    cluster.server.running(run.job).network.silent = True
    cluster.server.faults.down = True
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "could not be ended yet" in run.caller.warnings[0]
    assert processes_with(run.run_id)
    cluster.server.faults.down = False

    async def dead() -> bool:
        return not processes_with(run.run_id)

    await until(dead, "the program is ended once the API server is back", timeout_s=25)


async def test_adoption_waits_for_an_api_server_that_is_down(cluster: ClusterRig) -> None:
    run = cluster.run()
    await vanishes(run, await run.start(WAITING))
    cluster.server.faults.down = True
    owner = run.next_owner(cluster.executor(patience_s=0.5))
    # Nothing is known, so nothing is given up: the execution stays open.
    with pytest.raises(ExecutorUnavailable, match="does not answer"):
        await owner.adopt(WAITING)
    cluster.server.faults.heal()
    adopting = asyncio.create_task(owner.adopt(WAITING))
    await owner.printed(1)
    await goes_on(owner)
    ended = await adopting
    assert ended
    assert ended.exit_code == 3
