"""Everything with which a worker of the product uses a test cluster: image, kubeconfig, settings."""

import json
from pathlib import Path

from infra.pod_runner import archive
from tests.support.kube.container import Image

IMAGE = f"registry.example/tools@sha256:{'a' * 64}"
RUNNER = "/opt/swissbrain/runner.pyz"


def tools_image(folder: Path) -> Image:
    """Return the image of tools, whose runner is written to the folder."""
    runner = folder / "runner.pyz"
    archive.write(runner)
    return {RUNNER: runner}


def write_kubeconfig(path: Path, url: str) -> None:
    """Write the kubeconfig for a server without TLS."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": url}}],
        "users": [{"name": "test", "user": {"token": "test"}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    }
    path.write_text(json.dumps(content))


def worker_environment(kubeconfig: Path) -> dict[str, str]:
    """Return the variables of a worker that executes programs in the cluster."""
    return {
        "WORKER_EXECUTOR": "kubernetes",
        "KUBECONFIG": str(kubeconfig),
        "KUBERNETES_NAMESPACE": "agent-tools",
        "KUBERNETES_IMAGE": IMAGE,
    }
