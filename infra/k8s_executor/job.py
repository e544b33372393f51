"""Job of one call or of one session, as the Kubernetes API takes it (batch/v1, JSON). Pure builders.

The name of a call's Job is derived from the run, the call and the number of the execution in the journal, and never
from a fence or an attempt: whoever creates the Job of the same execution again finds the first one (409). A session is
never continued by another worker, so the name of its Job is random.
"""

import hashlib
import re
import secrets
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
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
SESSION_RUNNER_BYTES = RUNNER_BYTES + 64 * 1024**2
"""Memory of the runner of a session, which holds a reply."""
SESSION_FOLDER_BYTES = 256 * 1024**2
"""Size of each folder in memory of a session, as in the sandbox."""
SESSION_REQUEST_BYTES = 1024**3
"""Memory that a session is sure of. It may use four times as much, and is the first to go if its node runs short."""
SESSION_STORAGE_BYTES = 256 * 1024**2
"""Disk space of a session: the log of its container."""
FIRST_UID, UIDS = 10_000, 50_000
"""Range of the uids of pods: the kernel limits processes by uid and node. User namespaces have no uids above 65,535."""
IMAGE = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")
PREFIX = "swissbrain-agent"
MANAGED = {"app.kubernetes.io/name": "tool", "app.kubernetes.io/managed-by": PREFIX}
"""Labels of all Jobs and pods of tools."""
RUN, CALL, EXECUTION = f"{PREFIX}/run-id", f"{PREFIX}/call", f"{PREFIX}/execution"
"""Annotations that say which execution a Job belongs to."""
FENCE = f"{PREFIX}/fence"
"""Annotation that says which claim of its run the Job of a session belongs to."""
SESSION = {"app.kubernetes.io/component": "session"}
"""Label of sessions, by which the admission policy knows them."""
RUN_LABEL, INSTALLATION_LABEL = f"{PREFIX}/run", f"{PREFIX}/installation"
DIGEST_NAME = "RUNNER_TOKEN_SHA256"


@dataclass(frozen=True)
class JobProfile:
    """Settings of the operator for all Jobs. `image` has a digest: a tag may name another image tomorrow.

    `cpu` and `cpu_limit` are quantities of Kubernetes. `runtime_class` names a sandboxed runtime such as gVisor.
    `installation` is a label that tells the Jobs of this installation from those of others in the same namespace.
    `session_image` is the image of sessions; None: no session can be opened.
    """

    namespace: str
    image: str
    installation: str = "default"
    cpu: str = "250m"
    cpu_limit: str = "2"
    runtime_class: str | None = None
    user_namespaces: bool = False
    session_image: str | None = None


@dataclass(frozen=True)
class PodShape:
    """Properties in which pods of calls and pods of sessions differ. Sizes are in bytes.

    `folders` are writable, by name: path and size. `memory_request` is the guaranteed part of `memory`.
    """

    image: str
    memory: int
    memory_request: int
    storage: int
    folders: Mapping[str, tuple[str, int]]
    in_memory: bool = False


def job_name(run_id: str, call: str, execution: int) -> str:
    """Return the name of the Job of an execution, the first one of which has number 1."""
    return f"call-{hashlib.sha256(f'{run_id}/{call}/{execution}'.encode()).hexdigest()[:40]}"


def run_label(run_id: str) -> str:
    """Return the value of the label of a run's Jobs. An id may be too long for one, so it is in an annotation."""
    return hashlib.sha256(run_id.encode()).hexdigest()[:40]


def session_name() -> str:
    """Return a name for the Job of a session."""
    return f"session-{secrets.token_hex(20)}"


def job(profile: JobProfile, command: Command, execution: int, token_sha256: str) -> Manifest:
    """Return the Job of an execution. Raises ValueError for an image without a digest."""
    memory = command.limits.memory_bytes + RUNNER_BYTES
    folders = {"workspace": ("/workspace", WORKSPACE_BYTES), "tmp": ("/tmp", TMP_BYTES)}  # noqa: S108
    shape = PodShape(profile.image, memory, memory, WORKSPACE_BYTES + TMP_BYTES, folders)
    name = job_name(command.run_id, command.call, execution)
    return _job(profile, shape, command, name, token_sha256, notes={EXECUTION: str(execution)})


def session_job(profile: JobProfile, command: Command, fence: int, name: str, token_sha256: str) -> Manifest:
    """Return the Job of a session. Raises ValueError for an image without a digest."""
    folders = {"tmp": ("/tmp", SESSION_FOLDER_BYTES), "shm": ("/dev/shm", SESSION_FOLDER_BYTES)}  # noqa: S108
    memory = command.limits.memory_bytes + SESSION_RUNNER_BYTES + SESSION_FOLDER_BYTES * len(folders)
    request, image = min(SESSION_REQUEST_BYTES, memory), profile.session_image or ""
    shape = PodShape(image, memory, request, SESSION_STORAGE_BYTES, folders, in_memory=True)
    return _job(profile, shape, command, name, token_sha256, notes={FENCE: str(fence)}, more_labels=SESSION)


def _job(
    profile: JobProfile,
    shape: PodShape,
    command: Command,
    name: str,
    token_sha256: str,
    *,
    notes: Mapping[str, str],
    more_labels: Mapping[str, str] = MappingProxyType({}),
) -> Manifest:
    if not IMAGE.fullmatch(shape.image):
        raise ValueError(f"the image {shape.image!r} has no digest; allowed is NAME@sha256:DIGEST")
    run, installation = run_label(command.run_id), profile.installation
    labels = {**MANAGED, RUN_LABEL: run, INSTALLATION_LABEL: installation, **more_labels}
    notes = {RUN: command.run_id, CALL: command.call, **notes}
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
                "spec": _pod(profile, shape, command, name, token_sha256),
            },
        },
    }


def _pod(profile: JobProfile, shape: PodShape, command: Command, name: str, token_sha256: str) -> Manifest:
    uid = FIRST_UID + zlib.crc32(name.encode()) % UIDS
    medium = {"medium": "Memory"} if shape.in_memory else {}
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
        "containers": [_container(profile, shape, token_sha256)],
        "volumes": [
            {"name": volume, "emptyDir": {"sizeLimit": str(size), **medium}}
            for volume, (_, size) in shape.folders.items()
        ],
    }
    if profile.user_namespaces:
        pod["hostUsers"] = False
    if profile.runtime_class:
        pod["runtimeClassName"] = profile.runtime_class
    return pod


def _container(profile: JobProfile, shape: PodShape, token_sha256: str) -> Manifest:
    memory, request, storage = str(shape.memory), str(shape.memory_request), str(shape.storage)
    variables = {
        "RUNNER_PORT": str(CONTROL_PORT),
        DIGEST_NAME: token_sha256,
        "RUNNER_START_S": str(START_S),
    }
    return {
        "name": "tool",
        "image": shape.image,
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
            "requests": {"cpu": profile.cpu, "memory": request, "ephemeral-storage": storage},
            "limits": {"cpu": profile.cpu_limit, "memory": memory, "ephemeral-storage": storage},
        },
        "volumeMounts": [{"name": volume, "mountPath": path} for volume, (path, _) in shape.folders.items()],
    }
