"""Meaning of the states of pods and Jobs: which ones say that no program will start, and why one left no result.

The status of the container comes first, because that of the Job follows seconds later.
"""

import re
from collections.abc import Sequence

from infra.contract.errors import ContractError, ExecutorUnavailable, HostExhausted, LimitExceeded
from infra.k8s_executor.views import EventView, JobView, PodView

HINT = "docs/kubernetes.md names the setting"
_IMAGE_REASONS = {"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}
_CONFIG_REASONS = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "CrashLoopBackOff"}
_REFUSED_PULL = re.compile(r"not found|unauthorized|denied|forbidden|manifest unknown|no basic auth|invalid", re.I)
PULL_S = 60.0
"""Time for pulls that fail without a lasting reason: the kubelet tries again after 10 s and 20 s."""
_RETRIED = re.compile(r"Operation cannot be fulfilled|object has been modified")
"""Conflicts of several creations that change the same quota: the Job controller tries again at once."""
_QUOTA = re.compile(r"exceeded quota|must specify limits|maximum .* usage per")
_FULL_VOLUME = re.compile(r"exceeds the (total )?limit|ephemeral local storage usage exceeds")
MAX_CHARS = 500
BAD_SETTINGS, NOT_STARTED, NOT_STORED = 2, 3, 4
"""Exit codes of the runner (infra/pod_runner/__main__.py)."""


def start_problem(pod: PodView) -> ContractError | None:
    """Return why the runner of a pod will not start, None if it may start yet."""
    waiting = pod.state.waiting
    if waiting is None:
        return None
    reason, message = waiting.reason or "", (waiting.message or "")[:MAX_CHARS]
    if reason in _IMAGE_REASONS:
        return ExecutorUnavailable(f"the image of the pod cannot be pulled ({reason}: {message}); see KUBERNETES_IMAGE")
    if reason in _CONFIG_REASONS:
        return ExecutorUnavailable(f"the container of the pod cannot be made ({reason}: {message}); {HINT}")
    return None


def problem_patience_s(pod: PodView) -> float:
    """Return the seconds for which a start problem may pass by itself."""
    waiting = pod.state.waiting
    reason, message = (waiting.reason, waiting.message or "") if waiting else ("", "")
    passes = reason in {"ImagePullBackOff", "ErrImagePull"} and not _REFUSED_PULL.search(message)
    return PULL_S if passes else 0.0


def refusal_in(events: Sequence[EventView], job_uid: str) -> ContractError | None:
    """Return why the cluster makes no pod for a Job, None if nothing says that it refuses."""
    refusals = [event for event in events if event.involved_object.uid == job_uid and event.reason == "FailedCreate"]
    own = [event for event in refusals if not _RETRIED.search(event.message or "")]
    if not own:
        return None
    message = (own[-1].message or "no reason given")[:MAX_CHARS]
    if _QUOTA.search(message):
        return HostExhausted(f"the quota of the tools' namespace has no room for another pod: {message}")
    return ExecutorUnavailable(f"the cluster refuses the pods of tools: {message}; {HINT}")


def delay(pod: PodView | None) -> str:
    """Return why a pod does not run yet."""
    reason = (pod.condition("PodScheduled", "False") or pod.state.waiting) if pod else None
    text = (reason.message or reason.reason) if reason else ""
    return (text or "no reason is known")[:MAX_CHARS]


def loss(pod: PodView | None, job: JobView | None) -> ContractError | None:
    """Return why an execution has ended without a result, None if the states of pod and Job do not show it.

    `pod` is its last known state, if any.
    """
    if pod is not None:
        evicted = pod.condition("DisruptionTarget")
        text = (pod.status.message or (evicted.message if evicted else "") or "")[:MAX_CHARS]
        if _FULL_VOLUME.search(text):
            return LimitExceeded(f"the program filled a volume of its pod, which was evicted: {text}")
        if evicted or pod.status.reason in {"Evicted", "NodeLost", "Preempting", "Shutdown", "Terminated"}:
            return HostExhausted(f"the node gave up the pod ({pod.status.reason or 'DisruptionTarget'}: {text})")
        if pod.status.reason == "DeadlineExceeded":
            return HostExhausted("the pod passed its deadline, which is longer than all that the program may take")
        if ended := _ending(pod):
            return ended
    failure = job.failure if job else None
    if failure:
        return HostExhausted(f"the Job failed ({failure.reason}: {(failure.message or '')[:MAX_CHARS]})")
    return None


def _ending(pod: PodView) -> ContractError | None:
    ended = pod.state.terminated
    if ended is None:
        return None
    message = (ended.message or "")[:MAX_CHARS]
    # The kernel kills all processes of the container, the runner included, or only the program under it.
    if ended.reason == "OOMKilled":
        return LimitExceeded("the program used more memory than its limit, and the kernel ended its pod (OOMKilled)")
    if ended.reason in {"StartError", "ContainerCannotRun"} or ended.exit_code in {126, 127}:
        return ExecutorUnavailable(
            f"the runner cannot be started in the image ({ended.reason}: {message}); is it an image of this release? "
            "see KUBERNETES_IMAGE"
        )
    if ended.exit_code == BAD_SETTINGS:
        return ExecutorUnavailable("the runner of the pod refuses its settings; is its image of this release?")
    if ended.exit_code == NOT_STARTED:
        return ExecutorUnavailable(
            "no start reached the pod within its time; the NetworkPolicy must let workers reach TCP port 8700 of pods"
        )
    if ended.exit_code == NOT_STORED:
        return HostExhausted("the pod could not store the result of the program in the object store")
    if ended.exit_code == 0:
        return None
    return HostExhausted(f"the runner of the pod ended with exit code {ended.exit_code} ({ended.reason}) and no result")
