"""Sessions in pods of the cluster: programs that answer the requests of one worker, and end with it."""

import asyncio
import time
from functools import partial
from typing import Any

import pytest

from infra.contract.errors import ContractError, ExecutorUnavailable, HostExhausted, SessionLost
from infra.contract.execution import Command, ExecLimits, Session
from infra.k8s_executor import pod_session
from infra.k8s_executor.executor import KubernetesExecutor
from infra.k8s_executor.job import FENCE
from tests.k8s_executor.rig import NAMESPACE, ClusterRig
from tests.support.kube import Cut, Deny, Fail, PodFault
from tests.support.waiting import until

MB = 1024 * 1024
RUN = "run-1"
PROGRAM = """
import os, sys, time
done = []
while size := sys.stdin.buffer.read(4):
    text = sys.stdin.buffer.read(int.from_bytes(size, 'big')).decode()
    done.append(text)
    reply = str(eval(text)).encode()
    sys.stdout.buffer.write(len(reply).to_bytes(4, 'big') + reply)
    sys.stdout.buffer.flush()
"""


async def opened(executor: KubernetesExecutor, *, fence: int = 1, timeout_s: float = 60, **limits: Any) -> Session:
    command = Command(RUN, "session", "python", PROGRAM, timeout_s, ExecLimits(**limits))
    return await executor.open(command, 4 * MB, fence)


async def ask(session: Session, text: str, timeout_s: float = 30) -> str:
    return (await session.ask(text.encode(), timeout_s)).decode()


async def no_pod_is_left(cluster: ClusterRig) -> None:
    await until(cluster.is_empty, "no pod is left")


async def test_a_session_is_a_job_of_its_own_and_leaves_nothing(cluster: ClusterRig) -> None:
    executor = cluster.executor()
    session = await opened(executor, fence=7)
    assert await ask(session, "1 + 1") == "2"
    (job,) = cluster.server.objects("jobs", NAMESPACE)
    notes = job["metadata"]["annotations"]
    assert notes[FENCE] == "7"
    assert PROGRAM not in str(job)
    assert await ask(session, "[os.statvfs(f).f_blocks * os.statvfs(f).f_frsize for f in ('/tmp', '/dev/shm')]") == str(
        [256 * MB, 256 * MB]
    )
    await executor.release(RUN)
    with pytest.raises(SessionLost, match="it was closed"):
        await ask(session, "1")
    await no_pod_is_left(cluster)
    await until(lambda: _is_empty(cluster), "the Job is deleted")


async def _is_empty(cluster: ClusterRig) -> bool:
    return not cluster.jobs()


async def test_a_request_whose_connection_is_cut_is_carried_out_once(
    cluster: ClusterRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pod_session, "RETRY_S", 0.05)
    session = await opened(cluster.executor())
    network = cluster.server.running(*cluster.jobs()).network
    asking = asyncio.create_task(ask(session, "time.sleep(0.5) or 'slow'"))
    await asyncio.sleep(0.2)
    cluster.server.call(network.cut)
    assert await asking == "slow"
    cluster.server.call(partial(setattr, network, "cut_after", MB))
    assert await ask(session, f"'x' * {3 * MB}") == "x" * 3 * MB
    assert network.cut_after is None, "no connection was cut"
    assert await ask(session, "len(done)") == "3"
    await session.close()


async def test_a_lost_pod_loses_the_session_with_the_reason_of_the_cluster(cluster: ClusterRig) -> None:
    executor = cluster.executor()
    session = await opened(executor)
    (job,) = cluster.jobs()
    asking = asyncio.create_task(ask(session, "time.sleep(60)"))
    await asyncio.sleep(0.3)
    cluster.server.evict(job, "The node was low on resource: memory.")
    with pytest.raises(SessionLost, match=r"the node gave up the pod .*low on resource: memory"):
        await asking
    session = await opened(executor)
    (job,) = cluster.jobs() - {job}
    container = cluster.server.running(job).container
    assert container
    await asyncio.to_thread(container.kill)
    with pytest.raises(SessionLost, match="exit code"):
        await ask(session, "1")


async def test_a_reply_that_is_too_large_loses_the_session(cluster: ClusterRig) -> None:
    session = await opened(cluster.executor())
    with pytest.raises(SessionLost, match=f"its answer has {5 * MB} bytes; allowed are {4 * MB}"):
        await ask(session, f"'x' * {5 * MB}")
    await no_pod_is_left(cluster)


async def test_a_cancelled_request_ends_the_pod(cluster: ClusterRig) -> None:
    session = await opened(cluster.executor())
    asking = asyncio.create_task(ask(session, "os.fork(), time.sleep(60)"))
    await asyncio.sleep(0.2)
    began_s = time.monotonic()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert time.monotonic() - began_s < 30
    await no_pod_is_left(cluster)


async def test_a_session_that_is_cancelled_before_its_pod_runs_leaves_nothing(cluster: ClusterRig) -> None:
    cluster.server.faults.add_pod(PodFault(waiting="ContainerCreating", start_s=60))
    opening = asyncio.create_task(opened(cluster.executor()))
    await until(lambda: _has_job(cluster), "the Job is created")
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await no_pod_is_left(cluster)
    await until(lambda: _is_empty(cluster), "the Job is deleted")


async def _has_job(cluster: ClusterRig) -> bool:
    return bool(cluster.jobs())


async def test_a_session_is_ended_while_the_api_server_is_down(cluster: ClusterRig) -> None:
    session = await opened(cluster.executor())
    (job,) = cluster.jobs()
    pod = cluster.server.running(job)
    cluster.server.faults.down = True
    await session.close()
    assert pod.container
    await until(lambda: _has_ended(pod.container), "the runner has ended")
    cluster.server.faults.heal()
    await no_pod_is_left(cluster)


async def _has_ended(container: Any) -> bool:
    return container.exit_code is not None


async def test_the_reaper_ends_the_session_of_a_claim_that_is_over(cluster: ClusterRig) -> None:
    first = cluster.executor()
    await opened(first, fence=3)
    cluster.fences[RUN] = 3
    assert await first.reap() == 0
    second = cluster.executor()
    assert await second.reap() == 0
    cluster.fences[RUN] = 4
    assert await second.reap() == 1
    await no_pod_is_left(cluster)


async def test_a_pod_that_hears_nothing_of_its_worker_ends_by_itself(
    cluster: ClusterRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pod_session, "SILENCE_S", 10.0)
    monkeypatch.setattr(pod_session, "KEEP_S", 0.3)
    session = await opened(cluster.executor())
    pod = cluster.server.running(*cluster.jobs())
    assert await ask(session, "time.sleep(11) or 'kept'") == "kept"
    # Killed processes give no signs of life.
    for task in session._tasks:  # type: ignore[attr-defined]
        task.cancel()
    await until(lambda: _has_ended(pod.container), "the runner has ended")
    assert pod.container
    assert pod.container.exit_code == 0
    assert "the worker was silent for 10 s" in pod.container.log.read_text()


async def test_the_reason_of_an_end_between_two_requests_is_kept(
    cluster: ClusterRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pod_session, "KEEP_S", 0.2)
    session = await opened(cluster.executor(), memory_bytes=200 * MB)
    assert await ask(session, "__import__('threading').Timer(0.2, lambda: os._exit(9)).start()") == "None"
    await asyncio.sleep(1)
    with pytest.raises(SessionLost, match="it ended with exit code 9"):
        await ask(session, "1")


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        (PodFault(failed_create="violates PodSecurity"), ExecutorUnavailable, "violates PodSecurity"),
        (PodFault(failed_create="exceeded quota: tools"), HostExhausted, "quota"),
        (PodFault(waiting="ImagePullBackOff", message="not found"), ExecutorUnavailable, "not found"),
        (PodFault(start_error=True), ExecutorUnavailable, "cannot be started in the image"),
        (Deny(message="the image must have a digest"), ExecutorUnavailable, "the image must have a digest"),
    ],
)
async def test_a_session_that_the_cluster_refuses_says_why(
    cluster: ClusterRig, fault: PodFault | Deny, error: type[ContractError], message: str
) -> None:
    if isinstance(fault, Deny):
        cluster.server.faults.add(fault, "create", resource="jobs")
    else:
        cluster.server.faults.add_pod(fault)
    with pytest.raises(error, match=message):
        await opened(cluster.executor())
    await no_pod_is_left(cluster)


async def test_faults_of_the_api_server_at_the_start_make_no_second_pod(cluster: ClusterRig) -> None:
    cluster.server.faults.add(Cut("after"), "create", resource="jobs", times=1)
    cluster.server.faults.add(Fail(500), "list", "watch", chance=0.5, times=4)
    session = await opened(cluster.executor())
    assert await ask(session, "1") == "1"
    assert len(cluster.jobs()) == 1
    await session.close()


async def test_without_an_image_there_are_no_sessions(cluster: ClusterRig) -> None:
    with pytest.raises(ExecutorUnavailable, match="KUBERNETES_BROWSER_IMAGE is not set"):
        await opened(cluster.executor(session_image=None))
