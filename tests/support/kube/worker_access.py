"""Everything with which a worker of the product uses a test cluster: image, kubeconfig, settings."""

import json
from pathlib import Path

from infra.local_executor import machine
from infra.pod_runner import archive
from tests.support.kube.container import Image
from worker.browser.driver import policies
from worker.browser.settings import installation

IMAGE = f"registry.example/tools@sha256:{'a' * 64}"
BROWSER_IMAGE = f"registry.example/tools-browser@sha256:{'b' * 64}"
RUNNER = "/opt/swissbrain/runner.pyz"


def tools_image(folder: Path) -> Image:
    """Return the image of tools, whose runner is written to the folder."""
    runner = folder / "runner.pyz"
    archive.write(runner)
    return {RUNNER: runner}


def browser_image(folder: Path) -> Image:
    """Return the image of tools with a browser. What the real image has installed is mounted from this host."""
    found = installation()
    assert found, "Chromium or Playwright is missing"
    policy = folder / "policy.json"
    policy.write_text(policies.text())
    configuration = {path: Path(path) for path in machine.parts_of_host()}
    return {**tools_image(folder), **configuration, **found.mounts, f"/etc/{policies.FILE}": policy}


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
        "KUBERNETES_BROWSER_IMAGE": BROWSER_IMAGE,
    }
