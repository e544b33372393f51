"""A cluster behind the real kubectl, with the Secrets of an installation, and an overlay that is filled in."""

import base64
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.deploy.cluster import Cluster
from infra.deploy.deployer import Deployer
from infra.deploy.description import Description, read
from infra.deploy.edge import OSLS, PACKAGE
from infra.deploy.programs import Programs
from infra.deploy.record import Snapshot
from infra.deploy.sources import rendered
from scripts import kubernetes_tools
from tests.docs.pages import ROOT
from tests.support.kube import KubeServer, kube_server
from tests.support.kube.errors import Obj
from tests.support.kube.worker_access import write_kubeconfig
from tests.support.waiting import wait_until

NAMESPACES = ("agents", "agent-tools")
REGISTRY = "registry.example/swissbrain"
SECRET = "value-of-a-secret"

needs_kubectl = pytest.mark.skipif(not kubernetes_tools.are_installed(), reason="run 'make kubernetes-tools'")


def image(name: str, digit: str) -> str:
    """Return an image whose digest consists of one hexadecimal digit."""
    return f"{REGISTRY}/{name}@sha256:{digit * 64}"


@dataclass
class Site:
    """Cluster, the folder of the descriptions, and what was said so far."""

    server: KubeServer
    folder: Path
    said: list[str]

    def describe(self, digit: str, **options: object) -> Description:
        """Return the description of a deployment whose images have digests of this digit."""
        return read(None, {"context": "test", "overlay": str(self.overlay(digit)), **options})

    def overlay(self, digit: str) -> Path:
        """Return a small overlay: worker, API and egress proxy, with nothing left to be filled in."""
        folder = self.folder / digit
        if not folder.exists():
            folder.mkdir()
            write_overlay(folder, digit)
        return folder

    def cluster(self, *, dry_run: bool = False) -> Cluster:
        return Cluster(Programs(self.said.append, dry_run=dry_run), "test", "agents")

    def deployer(self, digit: str = "1", *, dry_run: bool = False, **options: object) -> Deployer:
        description = self.describe(digit, **options)
        return Deployer(description, self.cluster(dry_run=dry_run), None, release=f"{digit}.0.0", timeout_s=20)

    def deploy(self, digit: str, *, down: bool = False, **options: object) -> Snapshot:
        """Deploy with images of this digit, and record it as verified."""
        deployer = self.deployer(digit, **options)
        with rendered(self.describe(digit, **options), self.cluster()) as source:
            snapshot = deployer.deploy(source, down=down)
        deployer.succeed(snapshot)
        return snapshot

    def install(self, digit: str) -> Snapshot:
        """Bring the cluster to the state after a deployment, without kubectl where possible; return what runs."""
        deployer = self.deployer(digit)
        with rendered(self.describe(digit), self.cluster()) as source:
            for made in source.manifests.of("Deployment"):
                self.server.call(lambda made=made: self._put(made))  # type: ignore[misc]
            wait_until(self._is_rolled_out, "the Deployments are ready")
            deployer._begin("deploy", deployer.record.read())
            snapshot = deployer._snapshot(source, [])
        deployer.succeed(snapshot)
        self.said.clear()
        return snapshot

    def _put(self, made: Obj) -> None:
        store, key = self.server.store, (made["metadata"]["namespace"], made["metadata"]["name"])
        if store.find("deployments", *key):
            store.update("deployments", key, lambda new: new.update(spec=made["spec"]))
        else:
            store.create("deployments", made)

    def _is_rolled_out(self) -> bool:
        found = self.server.objects("deployments", "agents")
        return all(
            each.get("status", {}).get("observedGeneration") == each["metadata"]["generation"]
            and each["status"].get("updatedReplicas") == each["status"].get("replicas")
            for each in found
        )

    def images(self) -> str:
        """Return the digits of the images of worker, API and egress proxy."""
        found = {each["metadata"]["name"]: each for each in self.server.objects("deployments", "agents")}
        return "".join(
            found[name]["spec"]["template"]["spec"]["containers"][0]["image"][-1] if name in found else "-"
            for name in ("agent-worker", "agent-api", "agent-egress")
        )

    def commands(self) -> list[str]:
        """Return the commands that were shown since the last call."""
        found = [line for line in self.said if line.startswith(("$", "#"))]
        self.said.clear()
        return found


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Cluster with the Secrets of an installation; kubectl and helm are in the PATH, and no credentials around."""
    monkeypatch.setenv("PATH", f"{kubernetes_tools.FOLDER}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("infra.deploy.rollout.LOOK_S", 0.05)
    monkeypatch.setattr("infra.deploy.programs.PAUSE_S", 0.05)
    with kube_server(tmp_path, namespaces=NAMESPACES) as server:
        write_kubeconfig(tmp_path / "kubeconfig", server.url)
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        add_secrets(server)
        yield Site(server, tmp_path, [])


@dataclass
class Account:
    """Checkout with a stand-in of osls and its account of AWS."""

    folder: Path

    @property
    def osls(self) -> Path:
        """The program."""
        return self.folder / OSLS

    def read(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._file.read_text())
        return found

    def package(self, content: str) -> None:
        """Replace the package."""
        (self.folder / PACKAGE).write_text(content)

    def fail(self, command: str, message: str) -> None:
        """Let a command fail from now on."""
        self._file.write_text(json.dumps({**self.read(), "failures": {command: message}}))

    def mend(self) -> None:
        """Let all commands succeed."""
        self._file.write_text(json.dumps({**self.read(), "failures": {}}))

    @property
    def _file(self) -> Path:
        return self.osls.parent / "account.json"


@pytest.fixture
def account(tmp_path: Path) -> Account:
    """Return an account without deployments."""
    made = Account(tmp_path / "checkout")
    for path in (made.osls, made.folder / PACKAGE):
        path.parent.mkdir(parents=True)
    made.package("package")
    (made.folder / "serverless.yml").write_text("service: swissbrain\n")
    program = (Path(__file__).parent / "edge_stand_in.py").read_text()
    made.osls.write_text(f"#!{sys.executable} -IS\n{program}")
    made.osls.chmod(0o755)
    (made.osls.parent / "account.json").write_text(json.dumps({"kept": [], "running": "", "calls": [], "failures": {}}))
    return made


def write_overlay(folder: Path, digit: str) -> None:
    """Write an overlay over the files of the three servers."""
    for name in ("worker", "api", "egress"):
        shutil.copy(ROOT / "k8s" / "base" / f"{name}.yaml", folder)
    endpoint = {"name": "UPSTASH_REDIS_REST_URL", "value": "https://redis.example"}
    tools = {"name": "KUBERNETES_IMAGE", "value": image("tools", digit)}
    overlay = {
        "resources": ["worker.yaml", "api.yaml", "egress.yaml"],
        "images": [
            {
                "name": f"registry.invalid/swissbrain/{name}",
                "newName": f"{REGISTRY}/{name}",
                "digest": f"sha256:{digit * 64}",
            }
            for name in ("worker", "api")
        ],
        "patches": [
            {"patch": patch("agent-api", "api", endpoint)},
            {"patch": patch("agent-worker", "worker", tools)},
        ],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(overlay))


def patch(deployment: str, container: str, variable: dict[str, str]) -> str:
    """Return a patch that sets a variable of a Deployment."""
    spec = {"template": {"spec": {"containers": [{"name": container, "env": [variable]}]}}}
    meta = {"name": deployment, "namespace": "agents"}
    return yaml.safe_dump({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec})


def add_secrets(server: KubeServer, change: Callable[[str, dict[str, str]], None] = lambda *_: None) -> None:
    """Make the Secrets of the example with values; `change` may change the data of each."""
    for each in yaml.safe_load_all((ROOT / "k8s/examples/secrets.yaml").read_text()):
        name, data = each["metadata"]["name"], dict.fromkeys(each["stringData"], SECRET)
        change(name, data)
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
        made = {"metadata": {"name": name, "namespace": "agents"}, "type": "Opaque", "data": encoded}
        server.call(lambda made=made: server.store.create("secrets", made))  # type: ignore[misc]
