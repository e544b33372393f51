"""A cluster behind the real kubectl, with the Secrets of an installation, and an overlay that is filled in."""

import base64
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from infra.deploy.cluster import Cluster
from infra.deploy.deployer import Deployer
from infra.deploy.description import Description, read
from infra.deploy.manifests import Manifests
from infra.deploy.programs import Programs
from infra.deploy.record import Snapshot
from infra.deploy.sources import rendered
from scripts import kubernetes_tools
from tests.docs.pages import ROOT
from tests.support.kube import KubeServer, kube_server
from tests.support.kube.errors import Obj
from tests.support.kube.worker_access import write_kubeconfig

NAMESPACES = ("agents", "agent-tools")
REGISTRY = "registry.example/swissbrain"

pytestmark = pytest.mark.skipif(not kubernetes_tools.are_installed(), reason="run 'make kubernetes-tools'")


def image(name: str, digit: str) -> str:
    """Return an image whose digest consists of one hexadecimal digit."""
    return f"{REGISTRY}/{name}@sha256:{digit * 64}"


@dataclass
class Site:
    """Cluster, the folder of the description, and what kubectl and others are called with."""

    server: KubeServer
    folder: Path
    said: list[str]

    def describe(self, digit: str, **options: object) -> Description:
        """Return the description of a deployment whose images have digests of this digit."""
        images = {name: image(name, digit) for name in ("worker", "api", "tools")}
        return read(None, {"context": "test", "overlay": str(self.folder), "images": images, **options})

    def cluster(self, *, dry_run: bool = False) -> Cluster:
        return Cluster(Programs(self.said.append, dry_run=dry_run), "test", "agents")

    def deployer(self, digit: str = "1", *, release: str = "1.0.0", dry_run: bool = False, **options: object) -> Deployer:
        description = self.describe(digit, **options)
        return Deployer(description, self.cluster(dry_run=dry_run), None, release=release, timeout_s=20)

    def deploy(self, digit: str, *, down: bool = False, **options: object) -> Snapshot:
        """Deploy with images of this digit, and record it as verified."""
        deployer = self.deployer(digit, **options)
        with rendered(self.describe(digit, **options), self.cluster()) as source:
            snapshot = deployer.deploy(source, down=down)
        deployer.succeed(snapshot)
        return snapshot

    def deployment(self, name: str) -> Obj:
        return next(one for one in self.server.objects("deployments", "agents") if one["metadata"]["name"] == name)

    def image(self, name: str) -> str:
        """Return the digit of the image of a Deployment."""
        return str(self.deployment(name)["spec"]["template"]["spec"]["containers"][0]["image"])[-1]

    def commands(self) -> list[str]:
        """Return the commands that were shown since the last call."""
        found = [line for line in self.said if line.startswith(("$", "#"))]
        self.said.clear()
        return found


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Cluster with the Secrets of an installation; kubectl and helm are in the PATH, and no credentials around."""
    folder = tmp_path / "overlay"
    folder.mkdir()
    write_overlay(folder)
    monkeypatch.setenv("PATH", f"{kubernetes_tools.FOLDER}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("infra.deploy.rollout.LOOK_S", 0.05)
    monkeypatch.setattr("infra.deploy.programs.PAUSE_S", 0.05)
    with kube_server(tmp_path, namespaces=NAMESPACES) as server:
        write_kubeconfig(tmp_path / "kubeconfig", server.url)
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        add_secrets(server)
        yield Site(server, folder, [])


def write_overlay(folder: Path, base: str = "k8s/base") -> None:
    """Write an overlay in which everything is filled in."""
    zeros = "0" * 64
    endpoint = {"name": "UPSTASH_REDIS_REST_URL", "value": "https://redis.example"}
    tools = {"name": "KUBERNETES_IMAGE", "value": image("tools", "f")}
    overlay = {
        "resources": [os.path.relpath(ROOT / base, folder.resolve())],
        "images": [
            {"name": f"registry.invalid/swissbrain/{name}", "newName": f"{REGISTRY}/{name}", "digest": f"sha256:{'f' * 64}"}
            for name in ("worker", "api")
        ],
        "patches": [
            {"patch": patch("agent-api", "api", endpoint)},
            {"patch": patch("agent-worker", "worker", tools)},
            {"target": {"kind": "NetworkPolicy", "name": "tools"}, "patch": replaced("/spec/egress/2/to", [])},
            {
                "target": {"kind": "ValidatingAdmissionPolicy"},
                "patch": replaced("/spec/variables/0/expression", f"['{REGISTRY}/tools']"),
            },
        ],
    }
    assert zeros
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(overlay))


def patch(deployment: str, container: str, variable: dict[str, str]) -> str:
    """Return a patch that sets a variable of a Deployment."""
    spec = {"template": {"spec": {"containers": [{"name": container, "env": [variable]}]}}}
    meta = {"name": deployment, "namespace": "agents"}
    return yaml.safe_dump({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec})


def replaced(path: str, value: object) -> str:
    return yaml.safe_dump([{"op": "replace", "path": path, "value": value}])


def add_secrets(server: KubeServer, change: Callable[[str, dict[str, str]], None] = lambda *_: None) -> None:
    """Make the Secrets of the example with values; `change` may change the data of each."""
    for each in yaml.safe_load_all((ROOT / "k8s/examples/secrets.yaml").read_text()):
        name, data = each["metadata"]["name"], dict.fromkeys(each["stringData"], "value-of-a-secret")
        change(name, data)
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
        made = {"metadata": {"name": name, "namespace": "agents"}, "type": "Opaque", "data": encoded}
        server.call(lambda made=made: server.store.create("secrets", made))  # type: ignore[misc]


def manifests_of(site: Site, digit: str = "1") -> Manifests:
    """Return the rendered objects."""
    with rendered(site.describe(digit), site.cluster()) as source:
        return source.manifests
