"""Way of a Job to a running pod, and the end of that pod: what calls and sessions have in common."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from infra.contract.errors import ContractError, ExecutorUnavailable
from infra.k8s_executor.api import ApiRefused, KubeApi
from infra.k8s_executor.control import PodControl, PodUnreachable
from infra.k8s_executor.deadlines import GRACE_S, PENDING_S, START_S
from infra.k8s_executor.job import CONTROL_PORT, JobProfile, Manifest
from infra.k8s_executor.observer import Observed, PodObserver
from infra.k8s_executor.pod_states import delay, loss, problem_patience_s, refusal_in, start_problem
from infra.k8s_executor.stored_call import NoResult
from infra.k8s_executor.views import JobView

POLL_S = 5.0
"""Interval in which Job, pods and events are asked for while no pod runs, beside the watch."""
FIRST_POLL_S = 1.5
START_RETRY_S = 0.2
LOST_S = 60.0
"""Time after the grace period of a pod that is being deleted. If it has not ended by then, nobody confirms its end any
more, because its node is lost."""
DRAIN_S = 3.0
"""Time for the last bytes of a pod that has ended."""


@dataclass(frozen=True)
class Cluster:
    """Cluster as all executions of a worker use it. `port` is the control port of pods."""

    api: KubeApi
    observer: PodObserver
    profile: JobProfile
    port: int = CONTROL_PORT


async def create(api: KubeApi, manifest: Manifest) -> JobView:
    """Create a Job, or return the one of this name, which the caller must check. Raises ExecutorUnavailable, NoResult.

    A creation is repeated when its reply was lost, so the Job that exists may be the caller's own.
    """
    try:
        made, _ = await api.create_job(manifest)
    except ApiRefused as error:
        if error.status != 409:
            raise
        name = manifest["metadata"]["name"]
        found = await api.job(name)
        if found is None:
            raise NoResult(f"the Job {name} was deleted while it was created") from error
        return found
    return made


async def until_runner(cluster: Cluster, observed: Observed, job_name: str, job_uid: str) -> None:
    """Wait until the runner of a Job's pod runs, or has ended already. Raises NoResult if it will not run."""
    give_up_at = time.monotonic() + PENDING_S
    poll_at = time.monotonic() + FIRST_POLL_S
    failing_at = math.inf
    while not (observed.is_gone or (observed.pod and (observed.pod.is_running or observed.pod.has_ended))):
        if observed.pod and (problem := start_problem(observed.pod)):
            failing_at = min(failing_at, time.monotonic())
            if time.monotonic() >= failing_at + problem_patience_s(observed.pod):
                raise NoResult(str(problem), problem)
        if time.monotonic() >= give_up_at:
            raise NoResult(f"the pod did not run within {PENDING_S} s: {delay(observed.pod)}")
        await observed.changed(max(0.01, poll_at - time.monotonic()))
        if time.monotonic() >= poll_at:
            await _poll(cluster, observed, job_name, job_uid)
            poll_at = time.monotonic() + POLL_S


async def _poll(cluster: Cluster, observed: Observed, job_name: str, job_uid: str) -> None:
    """Ask for what the watch may have missed, and for the reason why there is no pod."""
    api = cluster.api
    await cluster.observer.refresh(job_uid, job_name)
    if observed.pod is not None:
        return
    if problem := refusal_in(await api.events(job_name), job_uid):
        raise NoResult(str(problem), problem)
    found = await api.job(job_name)
    if found is None or found.metadata.uid != job_uid or found.has_ended:
        failure = loss(None, found)
        raise NoResult(str(failure or "the Job was deleted before its pod ran"), failure)


def has_ended(observed: Observed) -> bool:
    """Return whether the pod has ended, as far as it is known, or is lost with its node."""
    if observed.is_gone or observed.pod is None or observed.pod.has_ended:
        return True
    return time.monotonic() >= observed.deleted_at + GRACE_S + LOST_S


async def reason_of_end(cluster: Cluster, observed: Observed, job_name: str) -> ContractError | None:
    """Return why a pod has ended, None if the states of pod and Job do not show it."""
    if not observed.is_gone and observed.pod and not observed.pod.has_ended:
        await observed.changed(POLL_S)
    try:
        found = await cluster.api.job(job_name)
    except ContractError:
        found = None
    return loss(observed.pod, found)


async def started(cluster: Cluster, observed: Observed, start: Callable[[], Awaitable[None]]) -> bool:
    """Call `start` until it reaches the pod; return False if the pod has ended before.

    Raises NoResult if the pod runs, and has not answered for START_S.
    """
    give_up_at = time.monotonic() + START_S
    while not has_ended(observed):
        try:
            await start()
        except PodUnreachable as error:
            if time.monotonic() >= give_up_at:
                failure = ExecutorUnavailable(
                    f"the worker cannot reach the pod: {error}; the NetworkPolicy must let workers reach TCP port "
                    f"{cluster.port} of pods"
                )
                raise NoResult(str(failure), failure) from error
            await asyncio.sleep(START_RETRY_S)
        else:
            return True
    return False


async def hang_up_after_end(control: PodControl, observed: Observed) -> None:
    """End the connections to a pod a moment after its end, in case that its node has left them open."""
    while not has_ended(observed):
        await observed.changed(POLL_S)
    await asyncio.sleep(DRAIN_S)
    control.hang_up()
