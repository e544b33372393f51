"""Job of a call, against literals: the restricted profile, nested deadlines, and names that lead to adoption."""

import json
from dataclasses import replace

import pytest

from infra.contract.execution import Command, ExecLimits
from infra.k8s_executor import job
from infra.k8s_executor.deadlines import START_S, TRANSFER_S, deadlines
from infra.k8s_executor.job import JobProfile, job_name

DIGEST = "sha256:" + "a" * 64
PROFILE = JobProfile("tools", f"registry.example/tools@{DIGEST}")
COMMAND = Command("run-1", "step-0", "sh", "true", 59.5, ExecLimits(memory_bytes=1024**3))
NAME = "call-159ba0635c34f2dd4e7e3ca7c13061bbb02051d8"

POD = {
    "restartPolicy": "Never",
    "activeDeadlineSeconds": 1440,
    "terminationGracePeriodSeconds": 60,
    "automountServiceAccountToken": False,
    "enableServiceLinks": False,
    "securityContext": {
        "runAsNonRoot": True,
        "runAsUser": 0,
        "runAsGroup": 0,
        "fsGroup": 0,
        "seccompProfile": {"type": "RuntimeDefault"},
    },
    "containers": [
        {
            "name": "tool",
            "image": f"registry.example/tools@{DIGEST}",
            "imagePullPolicy": "IfNotPresent",
            "command": ["python3", "-I", "-S", "/opt/swissbrain/runner.pyz"],
            "env": [
                {"name": "RUNNER_PORT", "value": "8700"},
                {"name": "RUNNER_TOKEN_SHA256", "value": "0" * 64},
                {"name": "RUNNER_START_S", "value": "120"},
            ],
            "ports": [{"name": "control", "containerPort": 8700, "protocol": "TCP"}],
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "privileged": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
            "resources": {
                "requests": {"cpu": "250m", "memory": "1174405120", "ephemeral-storage": "2952790016"},
                "limits": {"cpu": "2", "memory": "1174405120", "ephemeral-storage": "2952790016"},
            },
            "volumeMounts": [
                {"name": "workspace", "mountPath": "/workspace"},
                {"name": "tmp", "mountPath": "/tmp"},
            ],
        }
    ],
    "volumes": [
        {"name": "workspace", "emptyDir": {"sizeLimit": "2415919104"}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "536870912"}},
    ],
}


def test_a_job_is_restricted_and_holds_no_secret() -> None:
    made = job.job(PROFILE, COMMAND, 1, "0" * 64)
    pod = made["spec"].pop("template")
    spec = pod["spec"]
    uid = spec["securityContext"]["runAsUser"]
    assert job.FIRST_UID <= uid < job.FIRST_UID + job.UIDS
    assert {spec["securityContext"].pop(name) for name in ("runAsUser", "runAsGroup", "fsGroup")} == {uid}
    spec["securityContext"] |= {"runAsUser": 0, "runAsGroup": 0, "fsGroup": 0}
    assert spec == POD
    labels = {
        "app.kubernetes.io/name": "tool",
        "app.kubernetes.io/managed-by": "swissbrain-agent",
        "swissbrain-agent/run": job.run_label("run-1"),
        "swissbrain-agent/installation": "default",
    }
    notes = {
        "swissbrain-agent/run-id": "run-1",
        "swissbrain-agent/call": "step-0",
        "swissbrain-agent/execution": "1",
    }
    assert pod["metadata"] == {"labels": labels, "annotations": notes}
    assert made == {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name("run-1", "step-0", 1),
            "namespace": "tools",
            "labels": labels,
            "annotations": notes,
        },
        "spec": {
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "podReplacementPolicy": "Failed",
            "ttlSecondsAfterFinished": 900,
            "activeDeadlineSeconds": 2100,
            "podFailurePolicy": {
                "rules": [{"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
            },
        },
    }


def test_the_job_of_a_session_is_that_of_a_call_with_another_image_and_folders_in_memory() -> None:
    image = f"registry.example/tools-browser@{DIGEST}"
    name = job.session_name()
    command = Command("run-1", "session", "python", "secret", 60, ExecLimits(memory_bytes=4 * 1024**3))
    profile = replace(PROFILE, session_image=image)
    made = json.loads(json.dumps(job.session_job(profile, command, 7, name, "0" * 64)))
    call = json.loads(json.dumps(job.job(profile, command, 1, "0" * 64)))
    assert "secret" not in str(made)
    label = "app.kubernetes.io/component"
    for each in (made, made["spec"]["template"]):
        assert each["metadata"]["labels"].pop(label) == "session"
        assert each["metadata"]["annotations"].pop("swissbrain-agent/fence") == "7"
    for each in (call, call["spec"]["template"]):
        each["metadata"]["annotations"].pop("swissbrain-agent/execution")
    assert made["metadata"].pop("name") == name != call["metadata"].pop("name")
    pod, other = made["spec"]["template"]["spec"], call["spec"]["template"]["spec"]
    memory = {"sizeLimit": "268435456", "medium": "Memory"}
    assert pod.pop("volumes") == [{"name": "tmp", "emptyDir": memory}, {"name": "shm", "emptyDir": memory}]
    tool, plain = pod["containers"][0], other["containers"][0]
    assert tool.pop("volumeMounts") == [
        {"name": "tmp", "mountPath": "/tmp"},
        {"name": "shm", "mountPath": "/dev/shm"},
    ]
    assert tool.pop("image") == image
    assert tool.pop("resources") == {
        "requests": {"cpu": "250m", "memory": "1073741824", "ephemeral-storage": "268435456"},
        "limits": {"cpu": "2", "memory": "4999610368", "ephemeral-storage": "268435456"},
    }
    for value in (plain.pop("image"), plain.pop("volumeMounts"), plain.pop("resources"), other.pop("volumes")):
        assert value
    for spec in (pod, other):
        for uid in ("runAsUser", "runAsGroup", "fsGroup"):
            spec["securityContext"].pop(uid)
    assert made == call


def test_user_namespaces_and_a_runtime_class_are_optional() -> None:
    profile = JobProfile("tools", PROFILE.image, runtime_class="gvisor", user_namespaces=True)
    spec = job.job(profile, COMMAND, 1, "0" * 64)["spec"]["template"]["spec"]
    assert (spec["hostUsers"], spec["runtimeClassName"]) == (False, "gvisor")


def test_the_same_execution_has_the_same_name_and_another_one_another() -> None:
    keys = [("run-1", "step-0", 1), ("run-1", "step-0", 2), ("run-1", "step-1", 1), ("run-2", "step-0", 1)]
    assert len({job_name(*key) for key in keys}) == 4
    assert job_name("run-1", "step-0", 1) == NAME
    assert len(job_name("r" * 128, "c" * 128, 10**6)) <= 63


@pytest.mark.parametrize("timeout_s", [0.1, 60, 3600])
def test_deadlines_are_nested(timeout_s: float) -> None:
    made = deadlines(timeout_s)
    assert timeout_s + 2 * TRANSFER_S + START_S < made.pod_s < made.job_s < made.worker_s


@pytest.mark.parametrize("image", ["tools", "tools:latest", "tools@sha256:short", f"two words@{DIGEST}"])
def test_an_image_without_a_digest_is_refused(image: str) -> None:
    with pytest.raises(ValueError, match="no digest"):
        job.job(JobProfile("tools", image), COMMAND, 1, "0" * 64)
