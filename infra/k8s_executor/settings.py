"""Settings of the executor for Kubernetes, read once at the start of a worker."""

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path

from infra.egress.settings import TOKEN_KEY, token_key
from infra.k8s_executor.job import IMAGE, JobProfile
from infra.settings import Env, S3Settings, SettingsError, StoreSettings

NAMESPACE = "agent-tools"
EGRESS = "agent-egress.agents.svc:3128"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_ADDRESS = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}:[0-9]{1,5}")
_CPU = re.compile(r"[0-9]{1,6}m|[0-9]{1,3}(\.[0-9]{1,3})?")
_BOOLEANS = {"0": False, "false": False, "1": True, "true": True}


@dataclass(frozen=True)
class KubernetesSettings:
    """Settings of the executor. `kubeconfig` None: the service account of the worker's own pod.

    `egress`: address of the proxy for programs with a network, as host:port. `egress_key`: key that the proxy knows
    too; without a key, no program has a network.
    """

    profile: JobProfile
    kubeconfig: Path | None
    egress: str = EGRESS
    egress_key: str | None = field(default=None, repr=False)

    @classmethod
    def from_env(cls, env: Env, store: StoreSettings, files: S3Settings) -> "KubernetesSettings":
        """Read `KUBERNETES_NAMESPACE KUBERNETES_IMAGE KUBERNETES_BROWSER_IMAGE KUBERNETES_CPU KUBERNETES_CPU_LIMIT
        KUBERNETES_RUNTIME_CLASS KUBERNETES_USER_NAMESPACES KUBERNETES_EGRESS EGRESS_TOKEN_KEY KUBECONFIG`.

        Raises SettingsError.
        """
        image = env.text("KUBERNETES_IMAGE")
        if not IMAGE.fullmatch(image):
            raise SettingsError("KUBERNETES_IMAGE must be an image with a digest: NAME@sha256:DIGEST (64 hex digits)")
        session_image = env.optional("KUBERNETES_BROWSER_IMAGE")
        if session_image and not IMAGE.fullmatch(session_image):
            raise SettingsError(
                "KUBERNETES_BROWSER_IMAGE must be an image with a digest: NAME@sha256:DIGEST (64 hex digits)"
            )
        runtime_class = env.optional("KUBERNETES_RUNTIME_CLASS")
        if runtime_class and not _NAME.fullmatch(runtime_class):
            raise SettingsError(f"KUBERNETES_RUNTIME_CLASS must be the name of a RuntimeClass, not '{runtime_class}'")
        namespace = env.text("KUBERNETES_NAMESPACE", NAMESPACE)
        if not _NAME.fullmatch(namespace):
            raise SettingsError(f"KUBERNETES_NAMESPACE must be the name of a namespace, not '{namespace}'")
        user_namespaces = env.text("KUBERNETES_USER_NAMESPACES", "false").lower()
        if user_namespaces not in _BOOLEANS:
            raise SettingsError(f"KUBERNETES_USER_NAMESPACES must be true or false, not '{user_namespaces}'")
        profile = JobProfile(
            namespace=namespace,
            image=image,
            installation=installation(store, files),
            cpu=_cpu(env, "KUBERNETES_CPU", JobProfile.cpu),
            cpu_limit=_cpu(env, "KUBERNETES_CPU_LIMIT", JobProfile.cpu_limit),
            runtime_class=runtime_class,
            user_namespaces=_BOOLEANS[user_namespaces],
            session_image=session_image,
        )
        kubeconfig = env.optional("KUBECONFIG")
        if kubeconfig and not Path(kubeconfig).is_file():
            raise SettingsError(f"KUBECONFIG must be the path of one file that exists, not '{kubeconfig}'")
        egress = env.text("KUBERNETES_EGRESS", EGRESS)
        if not _ADDRESS.fullmatch(egress):
            raise SettingsError(f"KUBERNETES_EGRESS must be the proxy's address HOST:PORT, not '{egress}'")
        key = token_key(env) if env.optional(TOKEN_KEY) else None
        return cls(profile, Path(kubeconfig) if kubeconfig else None, egress, key)


def installation(store: StoreSettings, files: S3Settings) -> str:
    """Return the label of this installation: its workers share these settings, and no other installation does."""
    # One installation must not take the Jobs of another one for orphans, because it does not know their runs.
    named = f"{files.endpoint_url}/{files.bucket}/{store.keys.prefix}"
    return hashlib.sha256(named.encode()).hexdigest()[:16]


def _cpu(env: Env, name: str, default: str) -> str:
    text = env.text(name, default)
    if not _CPU.fullmatch(text):
        raise SettingsError(f"{name} must be a number of CPUs such as 2, 0.5 or 250m, not '{text}'")
    return text
