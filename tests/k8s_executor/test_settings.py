"""Settings of the executor: what is allowed, and which installations share a label."""

from pathlib import Path

import pytest

from infra.k8s_executor.settings import KubernetesSettings, installation
from infra.settings import Env, S3Settings, SettingsError, StoreSettings

IMAGE = f"registry.example/tools@sha256:{'a' * 64}"
S3 = {"S3_ACCESS_KEY": "key", "S3_SECRET_KEY": "secret"}


def read(**variables: str) -> KubernetesSettings:
    env = Env({"KUBERNETES_IMAGE": IMAGE, **S3, **variables})
    return KubernetesSettings.from_env(env, StoreSettings.from_env(env), S3Settings.from_env(env))


def test_only_the_image_is_required(tmp_path: Path) -> None:
    assert read().profile.namespace == "agent-tools"
    assert read().kubeconfig is None
    (tmp_path / "config").touch()
    made = read(
        KUBERNETES_NAMESPACE="tools",
        KUBERNETES_BROWSER_IMAGE=IMAGE,
        KUBERNETES_CPU="0.5",
        KUBERNETES_CPU_LIMIT="1500m",
        KUBERNETES_RUNTIME_CLASS="gvisor",
        KUBERNETES_USER_NAMESPACES="True",
        KUBECONFIG=str(tmp_path / "config"),
    )
    profile = made.profile
    assert (profile.namespace, profile.image, profile.cpu, profile.cpu_limit) == ("tools", IMAGE, "0.5", "1500m")
    assert (profile.runtime_class, profile.user_namespaces) == ("gvisor", True)
    assert (profile.session_image, read().profile.session_image) == (IMAGE, None)
    assert made.kubeconfig == tmp_path / "config"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KUBERNETES_IMAGE", "tools:latest"),
        ("KUBERNETES_BROWSER_IMAGE", "tools-browser:latest"),
        ("KUBERNETES_NAMESPACE", "Tools"),
        ("KUBERNETES_CPU", "lots"),
        ("KUBERNETES_CPU_LIMIT", "-1"),
        ("KUBERNETES_RUNTIME_CLASS", "g visor"),
        ("KUBERNETES_USER_NAMESPACES", "maybe"),
        ("KUBECONFIG", "/nonexistent:/neither"),
    ],
)
def test_a_wrong_value_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        read(**{name: value})


def test_installations_differ_by_what_their_workers_share() -> None:
    def label(**variables: str) -> str:
        env = Env({**S3, **variables})
        return installation(StoreSettings.from_env(env), S3Settings.from_env(env))

    others = [{"REDIS_KEY_PREFIX": "a:"}, {"S3_BUCKET": "other"}, {"S3_ENDPOINT_URL": "https://s3.example"}]
    labels = {label(), *(label(**other) for other in others)}
    assert len(labels) == 4
    assert label() == label(RETENTION_DAYS="1")
