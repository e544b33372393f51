"""Wait for rollouts, and recognise those that will not succeed: images that are not there, programs that crash."""

import time
from collections.abc import Iterator

from infra.deploy.cluster import KubectlCluster, Object
from infra.deploy.errors import DeployFailed
from infra.deploy.programs import ProgramFailed

REVISION = "deployment.kubernetes.io/revision"
LOOK_S = 2.0
HOPELESS = {
    "CrashLoopBackOff",
    "CreateContainerConfigError",
    "CreateContainerError",
    "ErrImageNeverPull",
    "ErrImagePull",
    "ImageInspectError",
    "ImagePullBackOff",
    "InvalidImageName",
    "RunContainerError",
}
"""Reasons for which a container waits that do not pass by themselves."""
LOOKS = 2
"""Looks in a row that must find the same failure: a registry or a node may fail once."""
MAX_REASON_CHARS = 300


class RolloutProgress:
    """State of a rollout: `done`, or else `text`, what is missing; `failure`: why it will not succeed."""

    def __init__(self, *, done: bool, text: str, failure: str = "") -> None:
        self.done = done
        self.text = text
        self.failure = failure


def judge(workload: Object, others: list[Object]) -> RolloutProgress:
    """Return how far the rollout of a Deployment or a StatefulSet is, from it, its ReplicaSets and its pods."""
    spec, status = workload["spec"], workload.get("status") or {}
    wanted = spec.get("replicas", 1)
    updated, ready = status.get("updatedReplicas", 0), status.get("readyReplicas", 0)
    total = status.get("replicas", 0)
    text = f"{min(updated, ready)} of {wanted} pods are new and ready, {max(0, total - updated)} old ones are left"
    if status.get("observedGeneration", 0) < workload["metadata"].get("generation", 0):
        return RolloutProgress(done=False, text="the controller has not seen the change yet")
    if updated == wanted and ready == wanted and total == wanted and _is_current(workload):
        return RolloutProgress(done=True, text=text)
    conditions = {each["type"]: each for each in status.get("conditions") or []}
    reasons = [
        *(_pod_failure(pod) for pod in _new_pods(workload, others)),
        _reason(conditions.get("ReplicaFailure"), "True"),
        _reason(conditions.get("Progressing"), "False"),
    ]
    return RolloutProgress(done=False, text=text, failure=next(filter(None, reasons), ""))


def current_replica_set(deployment: Object, others: list[Object]) -> Object | None:
    """Return the ReplicaSet of the present pod template of a Deployment; None if there is none yet."""
    revision = (deployment["metadata"].get("annotations") or {}).get(REVISION)
    for each in others:
        meta = each["metadata"]
        owners = [owner["uid"] for owner in meta.get("ownerReferences") or []]
        if (
            each["kind"] == "ReplicaSet"
            and deployment["metadata"]["uid"] in owners
            and (meta.get("annotations") or {}).get(REVISION) == revision
        ):
            return each
    return None


def wait(cluster: KubectlCluster, workload: str, deadline_s: float) -> None:
    """Wait for the rollout of a workload such as `deployment/agent-api`, until a time of the monotonic clock.

    A failing API server is asked again. Raises DeployFailed.
    """
    kind, _, name = workload.partition("/")
    cluster.programs.say(f"# wait for the rollout of {workload}")
    if cluster.programs.dry_run:
        return
    shown, failures = "", 0
    while True:
        try:
            found = cluster.all("deployments,statefulsets,replicasets,pods", f"app.kubernetes.io/name={name}")
            mine = [o for o in found if o["kind"].lower() == kind and o["metadata"]["name"] == name]
            progress = judge(mine[0], found) if mine else RolloutProgress(done=False, text=f"{workload} does not exist")
        except ProgramFailed as exc:
            progress = RolloutProgress(done=False, text=str(exc))
        if progress.done:
            cluster.programs.say(f"  {workload}: {progress.text}")
            return
        failures = failures + 1 if progress.failure else 0
        if failures >= LOOKS:
            raise DeployFailed(f"{workload} does not start: {progress.failure}")
        if time.monotonic() > deadline_s:
            raise DeployFailed(f"{workload} is not ready in time: {progress.failure or progress.text}")
        if progress.text != shown:
            cluster.programs.say(f"  {workload}: {progress.text}")
            shown = progress.text
        time.sleep(LOOK_S)


def _is_current(workload: Object) -> bool:
    status = workload.get("status") or {}
    return workload["kind"] != "StatefulSet" or status.get("currentRevision") == status.get("updateRevision")


def _new_pods(workload: Object, others: list[Object]) -> Iterator[Object]:
    """Yield the pods of the present pod template: former pods may crash while they are replaced."""
    owner = current_replica_set(workload, others) if workload["kind"] == "Deployment" else workload
    for each in others:
        if each["kind"] != "Pod" or owner is None:
            continue
        owners = [found["uid"] for found in each["metadata"].get("ownerReferences") or []]
        digest = (each["metadata"].get("labels") or {}).get("controller-revision-hash")
        current = workload["kind"] == "Deployment" or digest == (workload.get("status") or {}).get("updateRevision")
        if owner["metadata"]["uid"] in owners and current:
            yield each


def _pod_failure(pod: Object) -> str:
    """Return why a container of a pod will not start or stay, an empty text if it may."""
    statuses = [
        each
        for name in ("initContainerStatuses", "containerStatuses")
        for each in (pod.get("status") or {}).get(name) or []
    ]
    for each in statuses:
        waiting = (each.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") not in HOPELESS:
            continue
        ended = (each.get("lastState") or {}).get("terminated") or {}
        text = str(waiting.get("message") or "")
        if waiting["reason"] == "CrashLoopBackOff" and ended:
            text = f"exit code {ended.get('exitCode')} ({ended.get('reason')}); 'kubectl logs --previous' shows why"
        name, reason = pod["metadata"]["name"], waiting["reason"]
        return f"pod {name}: {reason}: {' '.join(text.split())[:MAX_REASON_CHARS]}".rstrip(": ")
    return ""


def _reason(condition: Object | None, status: str) -> str:
    if condition is None or condition.get("status") != status:
        return ""
    return f"{condition.get('reason')}: {' '.join(str(condition.get('message', '')).split())[:MAX_REASON_CHARS]}"
