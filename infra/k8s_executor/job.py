"""Job of one call, as the Kubernetes API takes it (batch/v1, JSON). Pure builders.

The name is derived from the run, the call and the number of the execution in the journal, and never from a fence or an
attempt: whoever creates the Job of the same execution again finds the first one (409).
"""

import hashlib
import re
import zlib
from dataclasses import dataclass
from typing import Any, TypeAlias

from infra.contract.execution import Command
from infra.k8s_executor.deadlines import GRACE_S, START_S, deadlines

Manifest: TypeAlias = dict[str, Any]

CONTROL_PORT = 8700
RUNNER = "/opt/swissbrain/runner.pyz"
"""Path of the runner's archive in the image."""
TTL_S = 900
"""Time for which a finished Job stays for a worker that takes over. It is deleted once its result is recorded."""
RUNNER_BYTES = 96 * 1024**2
"""Memory of the runner, and of the pages of the files that it reads."""
WORKSPACE_BYTES = 2 * 1024**3 + 256 * 1024**2
TMP_BYTES = 256 * 1024**2 + 256 * 1024**2
"""Sizes of the volumes: more than the limits of the runner, because a pod with a full volume is evicted. `/tmp` also
has the output and the lines."""
FIRST_UID, UIDS = 10_000, 50_000
"""Range of the uids of pods: the kernel limits processes by uid and node. User namespaces have no uids above 65,535."""
IMAGE = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")
PREFIX = "swissbrain-agent"
MANAGED = {"app.kubernetes.io/name": "tool", "app.kubernetes.io/managed-by": PREFIX}
"""Labels of all Jobs and pods of tools."""
RUN, CALL, EXECUTION = f"{PREFIX}/run-id", f"{PREFIX}/call", f"{PREFIX}/execution"
"""Annotations that say which execution a Job belongs to."""
RUN_LABEL, INSTALLATION_LABEL = f"{PREFIX}/run", f"{PREFIX}/installation"
DIGEST_NAME = "RUNNER_TOKEN_SHA256"


@dataclass(frozen=True)
class JobProfile:
    """Settings of the operator for all Jobs. `image` has a digest: a tag may name another image tomorrow.

    `cpu` and `cpu_limit` are quantities of Kubernetes. `runtime_class` names a sandboxed runtime such as gVisor.
    `installation` is a label that tells the Jobs of this installation from those of others in the same namespace.
    """

    namespace: str
    image: str
    installation: str = "default"
    cpu: str = "250m"
    cpu_limit: str = "2"
    runtime_class: str | None = None
    user_namespaces: bool = False


def job_name(run_id: str, call: str, execution: int) -> str:
    """Return the name of the Job of an execution, the first one of which has number 1."""
    return f"call-{hashlib.sha256(f'{run_id}/{call}/{execution}'.encode()).hexdigest()[:40]}"


def run_label(run_id: str) -> str:
    """Return the value of the label of a run's Jobs. An id may be too long for one, so it is in an annotation."""
    return hashlib.sha256(run_id.encode()).hexdigest()[:40]


def job(profile: JobProfile, command: Command, execution: int, token_sha256: str) -> Manifest:
    """Return the Job of an execution. Raises ValueError for an image without a digest."""
    if not IMAGE.fullmatch(profile.image):
        raise ValueError(f"the image {profile.image!r} has no digest; allowed is NAME@sha256:DIGEST")
    name = job_name(command.run_id, command.call, execution)
    labels = {**MANAGED, RUN_LABEL: run_label(command.run_id), INSTALLATION_LABEL: profile.installation}
    notes = {RUN: command.run_id, CALL: command.call, EXECUTION: str(execution)}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": profile.namespace, "labels": labels, "annotations": notes},
        "spec": {
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "podReplacementPolicy": "Failed",
            "ttlSecondsAfterFinished": TTL_S,
            "activeDeadlineSeconds": deadlines(command.timeout_s).job_s,
            # Without this rule an eviction looks like a program that was killed: exit code 137.
            "podFailurePolicy": {
                "rules": [
                    {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                ]
            },
            "template": {
                "metadata": {"labels": labels, "annotations": notes},
                "spec": _pod(profile, command, name, token_sha256),
            },
        },
    }


def _pod(profile: JobProfile, command: Command, name: str, token_sha256: str) -> Manifest:
    uid = FIRST_UID + zlib.crc32(name.encode()) % UIDS
    pod: Manifest = {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": deadlines(command.timeout_s).pod_s,
        "terminationGracePeriodSeconds": GRACE_S,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": uid,
            "runAsGroup": uid,
            "fsGroup": uid,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(profile, command, token_sha256)],
        "volumes": [
            {"name": "workspace", "emptyDir": {"sizeLimit": str(WORKSPACE_BYTES)}},
            {"name": "tmp", "emptyDir": {"sizeLimit": str(TMP_BYTES)}},
        ],
    }
    if profile.user_namespaces:
        pod["hostUsers"] = False
    if profile.runtime_class:
        pod["runtimeClassName"] = profile.runtime_class
    return pod


def _container(profile: JobProfile, command: Command, token_sha256: str) -> Manifest:
    memory = str(command.limits.memory_bytes + RUNNER_BYTES)
    storage = str(WORKSPACE_BYTES + TMP_BYTES)
    variables = {
        "RUNNER_PORT": str(CONTROL_PORT),
        DIGEST_NAME: token_sha256,
        "RUNNER_START_S": str(START_S),
    }
    return {
        "name": "tool",
        "image": profile.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-I", "-S", RUNNER],
        "env": [{"name": name, "value": value} for name, value in variables.items()],
        "ports": [{"name": "control", "containerPort": CONTROL_PORT, "protocol": "TCP"}],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "resources": {
            "requests": {"cpu": profile.cpu, "memory": memory, "ephemeral-storage": storage},
            "limits": {"cpu": profile.cpu_limit, "memory": memory, "ephemeral-storage": storage},
        },
        "volumeMounts": [
            {"name": "workspace", "mountPath": "/workspace"},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
        ],
    }
