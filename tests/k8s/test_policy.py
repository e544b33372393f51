"""Admission policy of the namespace of tools: the Jobs of the executor pass, and no other ones do."""

import copy
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from infra.contract.execution import Command, ExecLimits
from infra.contract.tools import MAX_TOOL_TIMEOUT_S
from infra.k8s_executor import job
from infra.k8s_executor.job import JobProfile
from scripts.check_manifests import Object, quantity
from tests.k8s.policy import Policy
from tests.k8s.rendering import source
from worker.browser.settings import LIMITS
from worker.run.session import MAX_SESSION_S

REPOSITORY = "registry.example/tools"
IMAGE = f"{REPOSITORY}@sha256:{'a' * 64}"
POLICY = Policy(REPOSITORY, "registry.example/tools-browser")

JOB_DEFAULTS = {"completionMode": "NonIndexed", "suspend": False, "manualSelector": False}
POD_DEFAULTS: Object = {
    "dnsPolicy": "ClusterFirst",
    "schedulerName": "default-scheduler",
}
CONTAINER_DEFAULTS = {"terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}
"""What an API server adds to a Job before it asks the policy."""
ADMITTED_POD: Object = {
    "serviceAccountName": "default",
    "serviceAccount": "default",
    "priority": 0,
    "preemptionPolicy": "PreemptLowerPriority",
    "nodeName": "pool-1",
    "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}],
}
"""What admission and the scheduler add to a pod."""


def built(timeout_s: float = 60.0, image: str = IMAGE, **profile: Any) -> Object:
    """Return a Job as the executor builds it."""
    command = Command("run-1", "step-0", "sh", "true", timeout_s, ExecLimits(memory_bytes=1024**3))
    return job.job(JobProfile("agent-tools", image, **profile), command, 1, "0" * 64)


def session() -> Object:
    """Return the Job of a session as the executor builds it."""
    profile = JobProfile("agent-tools", IMAGE, session_image=f"{REPOSITORY}-browser@sha256:{'b' * 64}")
    command = Command("run-1", "session", "python", "pass", MAX_SESSION_S, LIMITS)
    return job.session_job(profile, command, 1, job.session_name(), "0" * 64)


def with_defaults(made: Object) -> Object:
    """Return a Job as an API server completes it."""
    each = copy.deepcopy(made)
    each["spec"] |= JOB_DEFAULTS
    pod_of(each).update(POD_DEFAULTS)
    tool_of(each).update(CONTAINER_DEFAULTS)
    return each


def pod_of(each: Object) -> Object:
    spec: Object = each["spec"]["template"]["spec"]
    return spec


def tool_of(each: Object) -> Object:
    tool: Object = pod_of(each)["containers"][0]
    return tool


def as_pod(made: Object) -> Object:
    """Return the pod that the Job controller makes of a Job."""
    template = copy.deepcopy(made["spec"]["template"])
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "call-x-abcde", "namespace": "agent-tools"}}
    pod["metadata"] |= template["metadata"]
    return {**pod, "spec": {**template["spec"], **ADMITTED_POD}}


@pytest.mark.parametrize(
    "made",
    [
        built(),
        built(timeout_s=0.1),
        built(timeout_s=MAX_TOOL_TIMEOUT_S),
        built(runtime_class="gvisor", user_namespaces=True, cpu="1", cpu_limit="4"),
        built(image=f"registry.example/tools-browser@sha256:{'b' * 64}"),
        session(),
    ],
    ids=["plain", "short", "longest", "isolated", "browser", "session"],
)
def test_a_job_of_the_executor_passes_as_do_its_pods(made: Object) -> None:
    assert POLICY.refusals(made) == []
    assert POLICY.refusals(with_defaults(made)) == []
    assert POLICY.refusals(as_pod(with_defaults(made))) == []


SECRET = {"secretKeyRef": {"name": "agent-worker", "key": "S3_SECRET_KEY"}}
OTHER = {"name": "other", "image": IMAGE}
CHANGES: dict[str, tuple[str, Callable[[Object], object]]] = {
    "a second container": ("exactly one container", lambda j: pod_of(j)["containers"].append(OTHER)),
    "an init container": ("exactly one container", lambda j: pod_of(j).update(initContainers=[OTHER])),
    "a debug container": ("exactly one container", lambda j: pod_of(j).update(ephemeralContainers=[OTHER])),
    "other labels": ("labels", lambda j: j["spec"]["template"]["metadata"].update(labels={"app": "x"})),
    "no labels": ("labels", lambda j: j["spec"]["template"].pop("metadata")),
    "an image by tag": ("digest", lambda j: tool_of(j).update(image=f"{REPOSITORY}:latest")),
    "tag and digest": ("digest", lambda j: tool_of(j).update(image=f"{REPOSITORY}:1@sha256:{'a' * 64}")),
    "an image from elsewhere": ("digest", lambda j: tool_of(j).update(image=f"evil.example/tools@sha256:{'a' * 64}")),
    "a repository with the same beginning": (
        "digest",
        lambda j: tool_of(j).update(image=f"{REPOSITORY}-evil@sha256:{'a' * 64}"),
    ),
    "a short digest": ("digest", lambda j: tool_of(j).update(image=f"{REPOSITORY}@sha256:abc")),
    "another program": ("start the runner", lambda j: tool_of(j).update(command=["sh", "-c", "id"])),
    "the entry point of the image": ("start the runner", lambda j: tool_of(j).pop("command")),
    "arguments": ("start the runner", lambda j: tool_of(j).update(args=["--help"])),
    "another variable": ("environment", lambda j: tool_of(j)["env"].append({"name": "LD_PRELOAD", "value": "x"})),
    "a variable from a Secret": (
        "environment",
        lambda j: tool_of(j)["env"].append({"name": "RUNNER_PORT", "valueFrom": SECRET}),
    ),
    "all variables of a Secret": (
        "environment",
        lambda j: tool_of(j).update(envFrom=[{"secretRef": {"name": "agent-worker"}}]),
    ),
    "a hook": ("hooks", lambda j: tool_of(j).update(lifecycle={"postStart": {"exec": {"command": ["id"]}}})),
    "a probe from the node": (
        "hooks",
        lambda j: tool_of(j).update(livenessProbe={"httpGet": {"host": "169.254.169.254", "port": 80}}),
    ),
    "a folder of the host": (
        "emptyDir",
        lambda j: pod_of(j)["volumes"].append({"name": "h", "hostPath": {"path": "/"}}),
    ),
    "a Secret as a volume": (
        "emptyDir",
        lambda j: pod_of(j)["volumes"].append({"name": "s", "secret": {"secretName": "agent-worker"}}),
    ),
    "a token as a volume": (
        "emptyDir",
        lambda j: pod_of(j)["volumes"].append(
            {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}
        ),
    ),
    "a claim as a volume": (
        "emptyDir",
        lambda j: pod_of(j)["volumes"].append({"name": "c", "persistentVolumeClaim": {"claimName": "data-valkey-0"}}),
    ),
    "a volume without a limit": ("emptyDir", lambda j: pod_of(j)["volumes"].append({"name": "e", "emptyDir": {}})),
    "a volume in memory": ("emptyDir", lambda j: pod_of(j)["volumes"][0]["emptyDir"].update(medium="Memory")),
    "a device": ("devices", lambda j: tool_of(j).update(volumeDevices=[{"name": "d", "devicePath": "/dev/x"}])),
    "a token": ("token", lambda j: pod_of(j).update(automountServiceAccountToken=True)),
    "the default about tokens": ("token", lambda j: pod_of(j).pop("automountServiceAccountToken")),
    "an account": ("token", lambda j: pod_of(j).update(serviceAccountName="agent-worker")),
    "the network of the host": ("of the host", lambda j: pod_of(j).update(hostNetwork=True)),
    "the processes of the host": ("of the host", lambda j: pod_of(j).update(hostPID=True)),
    "the IPC of the host": ("of the host", lambda j: pod_of(j).update(hostIPC=True)),
    "a port of the host": ("of the host", lambda j: tool_of(j)["ports"][0].update(hostPort=8700)),
    "names of hosts": ("of the host", lambda j: pod_of(j).update(hostAliases=[{"ip": "10.0.0.1"}])),
    "another DNS server": ("DNS", lambda j: pod_of(j).update(dnsConfig={"nameservers": ["203.0.113.1"]})),
    "the DNS of the host": ("DNS", lambda j: pod_of(j).update(dnsPolicy="Default")),
    "root": ("without root", lambda j: pod_of(j)["securityContext"].update(runAsUser=0)),
    "a uid of the host": ("without root", lambda j: pod_of(j)["securityContext"].update(runAsUser=1000)),
    "the uid of the image": ("without root", lambda j: pod_of(j)["securityContext"].pop("runAsUser")),
    "a group of the host": ("without root", lambda j: pod_of(j)["securityContext"].update(supplementalGroups=[6])),
    "no seccomp": (
        "without root",
        lambda j: pod_of(j)["securityContext"].update(seccompProfile={"type": "Unconfined"}),
    ),
    "no security context": ("without root", lambda j: pod_of(j).pop("securityContext")),
    "no security context of the container": ("read-only", lambda j: tool_of(j).pop("securityContext")),
    "a writable root": ("read-only", lambda j: tool_of(j)["securityContext"].update(readOnlyRootFilesystem=False)),
    "privileges": ("read-only", lambda j: tool_of(j)["securityContext"].update(privileged=True)),
    "growing privileges": (
        "read-only",
        lambda j: tool_of(j)["securityContext"].update(allowPrivilegeEscalation=True),
    ),
    "a capability": (
        "read-only",
        lambda j: tool_of(j)["securityContext"]["capabilities"].update(add=["NET_RAW"]),
    ),
    "root in the container": ("read-only", lambda j: tool_of(j)["securityContext"].update(runAsUser=0)),
    "seccomp of the container": (
        "read-only",
        lambda j: tool_of(j)["securityContext"].update(seccompProfile={"type": "Unconfined"}),
    ),
    "an unmasked proc": ("read-only", lambda j: tool_of(j)["securityContext"].update(procMount="Unmasked")),
    "no limit of memory": ("must be limited", lambda j: tool_of(j)["resources"]["limits"].pop("memory")),
    "no limits": ("must be limited", lambda j: tool_of(j).pop("resources")),
    "a GPU": ("must be limited", lambda j: tool_of(j)["resources"]["limits"].update({"nvidia.com/gpu": "1"})),
    "restarts": ("restarted", lambda j: pod_of(j).update(restartPolicy="OnFailure")),
    "a pod without a deadline": ("restarted", lambda j: pod_of(j).pop("activeDeadlineSeconds")),
    "a pod with a late deadline": ("restarted", lambda j: pod_of(j).update(activeDeadlineSeconds=86400)),
    "a long end": ("restarted", lambda j: pod_of(j).update(terminationGracePeriodSeconds=86400)),
    "a Job without a deadline": ("one pod", lambda j: j["spec"].pop("activeDeadlineSeconds")),
    "a Job with a late deadline": ("one pod", lambda j: j["spec"].update(activeDeadlineSeconds=86400)),
    "a Job that stays": ("one pod", lambda j: j["spec"].pop("ttlSecondsAfterFinished")),
    "a Job that goes at once": ("one pod", lambda j: j["spec"].update(ttlSecondsAfterFinished=0)),
    "retries": ("one pod", lambda j: j["spec"].update(backoffLimit=6)),
    "many pods": ("one pod", lambda j: j["spec"].update(completions=100, parallelism=100)),
    "a node": ("the node", lambda j: pod_of(j).update(nodeName="control-plane")),
    "a priority": ("the node", lambda j: pod_of(j).update(priorityClassName="system-cluster-critical")),
    "tolerations": ("the node", lambda j: pod_of(j).update(tolerations=[{"operator": "Exists"}])),
}
"""Changes of a Job, each with words of the message that refuses it."""


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_job_is_refused(change: str) -> None:
    words, apply = CHANGES[change]
    each = with_defaults(built())
    apply(each)
    assert [message for message in POLICY.refusals(each) if words in message], POLICY.refusals(each)


SESSION_CHANGES: dict[str, tuple[str, Callable[[Object], object]]] = {
    "a volume on disk": ("emptyDir", lambda j: pod_of(j)["volumes"][0]["emptyDir"].pop("medium")),
    "a volume without a limit": ("emptyDir", lambda j: pod_of(j)["volumes"][0]["emptyDir"].pop("sizeLimit")),
    "a third volume": (
        "two folders",
        lambda j: pod_of(j)["volumes"].append({"name": "e", "emptyDir": {"sizeLimit": "1", "medium": "Memory"}}),
    ),
    "another folder": ("two folders", lambda j: tool_of(j)["volumeMounts"][1].update(mountPath="/opt/browser")),
    "no folders": ("two folders", lambda j: tool_of(j).pop("volumeMounts")),
    "no label of a session": (
        "emptyDir",
        lambda j: j["spec"]["template"]["metadata"]["labels"].pop("app.kubernetes.io/component"),
    ),
}


@pytest.mark.parametrize("change", SESSION_CHANGES)
def test_a_changed_session_is_refused(change: str) -> None:
    words, apply = SESSION_CHANGES[change]
    each = with_defaults(session())
    apply(each)
    assert [message for message in POLICY.refusals(each) if words in message], POLICY.refusals(each)


def test_each_rule_refuses_one_of_the_changed_jobs() -> None:
    changes = [*CHANGES.values(), *SESSION_CHANGES.values()]
    unused = [message for message in POLICY.messages if not any(words in message for words, _ in changes)]
    assert unused == []


@pytest.mark.parametrize(
    "change",
    ["a debug container", "an image from elsewhere", "a folder of the host", "the network of the host", "root"],
)
def test_a_changed_pod_is_refused_too(change: str) -> None:
    words, apply = CHANGES[change]
    each = with_defaults(built())
    apply(each)
    assert [message for message in POLICY.refusals(as_pod(each)) if words in message]


def test_the_cluster_can_finish_a_pod_of_an_earlier_policy_and_change_nothing_else_of_it() -> None:
    old = as_pod(with_defaults(built(image=f"registry.example/former@sha256:{'a' * 64}")))
    assert POLICY.refusals(old)
    assert POLICY.is_asked(old)
    finished = copy.deepcopy(old)
    finished["metadata"]["finalizers"] = []
    assert not POLICY.is_asked(finished, old)
    debugged = copy.deepcopy(old)
    debugged["spec"]["ephemeralContainers"] = [OTHER]
    assert POLICY.is_asked(debugged, old)


def test_the_policy_asks_for_jobs_pods_and_debug_containers_of_the_namespace_and_fails_closed() -> None:
    policy, binding = source("base/admission.yaml")
    spec = policy["spec"]
    rules = spec["matchConstraints"]["resourceRules"]
    assert spec["failurePolicy"] == "Fail"
    assert [rule["resources"] for rule in rules] == [["jobs"], ["pods", "pods/ephemeralcontainers"]]
    assert {operation for rule in rules for operation in rule["operations"]} == {"CREATE", "UPDATE"}
    assert binding["spec"]["validationActions"] == ["Deny", "Audit"]
    assert binding["spec"]["matchResources"] == {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "agent-tools"}}
    }


def test_only_the_worker_has_rights_and_only_in_the_namespace_without_secrets() -> None:
    accounts = [each for each in source("base/access.yaml") if each["kind"] == "ServiceAccount"]
    (role,) = (each for each in source("base/access.yaml") if each["kind"] == "Role")
    (binding,) = (each for each in source("base/access.yaml") if each["kind"] == "RoleBinding")
    assert all(each["automountServiceAccountToken"] is False for each in accounts)
    assert role["metadata"]["namespace"] == binding["metadata"]["namespace"] == "agent-tools"
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "agent-worker", "namespace": "agents"}]
    assert {resource: rule["verbs"] for rule in role["rules"] for resource in rule["resources"]} == {
        "jobs": ["create", "get", "list", "delete"],
        "pods": ["list", "watch"],
        "events": ["list"],
    }
    assert {each["kind"] for each in source("base/access.yaml")} == {"ServiceAccount", "Role", "RoleBinding"}


def test_a_job_fits_into_the_limits_and_the_quota_of_the_namespace() -> None:
    quota, limits = (each["spec"] for each in source("base/quotas.yaml"))
    (most,) = (each["max"] for each in limits["limits"])
    for made in (built(), session()):
        for name, value in tool_of(made)["resources"]["limits"].items():
            assert _number(value) <= _number(most[name])
            assert _number(value) * 20 <= _number(quota["hard"][f"limits.{name}"])
    assert {name for name, value in quota["hard"].items() if value == "0"} == {
        "count/secrets",
        "services",
        "persistentvolumeclaims",
    }


def _number(text: object) -> Decimal:
    found = quantity(text)
    assert found is not None
    return found
