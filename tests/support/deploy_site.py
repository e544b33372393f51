"""Site of a deployment: a cluster behind the real kubectl, Secrets, small overlays, an account for the edge."""

import base64
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from typer.testing import Result

from infra.deploy.cluster import KubectlCluster
from infra.deploy.deployer import Deployer
from infra.deploy.description import Description, read
from infra.deploy.edge import OSLS, PACKAGE
from infra.deploy.manifests import Manifests
from infra.deploy.programs import Programs
from infra.deploy.record import KEY, NAME, Attempt, EdgeState, Snapshot, State
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
    """KubectlCluster, the folder of the descriptions, and what was said so far."""

    server: KubeServer
    folder: Path
    said: list[str]

    def describe(self, digit: str, **options: Any) -> Description:
        """Return the description of a deployment whose images have digests of this digit."""
        return read(None, {"context": "test", "overlay": str(self.overlay(digit)), **options})

    def overlay(self, digit: str) -> Path:
        """Return a small overlay: worker, API and egress proxy, with nothing left to be filled in."""
        folder = self.folder / digit
        if not folder.exists():
            folder.mkdir()
            write_overlay(folder, digit)
        return folder

    def cluster(self, *, dry_run: bool = False) -> KubectlCluster:
        return KubectlCluster(Programs(self.said.append, dry_run=dry_run), "test", "agents")

    def deployer(self, digit: str = "1", *, dry_run: bool = False, **options: Any) -> Deployer:
        description = self.describe(digit, **options)
        return Deployer(description, self.cluster(dry_run=dry_run), None, release=f"{digit}.0.0", timeout_s=20)

    def deploy(self, digit: str, *, down: bool = False, **options: Any) -> Snapshot:
        """Deploy with images of this digit, and record it as verified."""
        deployer = self.deployer(digit, **options)
        with rendered(self.describe(digit, **options), self.cluster()) as source:
            snapshot = deployer.deploy(source, down=down)
        deployer.succeed(snapshot)
        return snapshot

    def install(self, digit: str, edge: EdgeState | None = None) -> Snapshot:
        """Bring cluster and record to the state after a deployment, without the slow kubectl; return what runs."""
        for made in Manifests(rendered_text(self.overlay(digit))).of("Deployment"):
            self.server.call(lambda made=made: self._put(made))  # type: ignore[misc]
        wait_until(self._is_rolled_out, "the Deployments are ready")
        found = [
            {**each, "kind": kind}
            for plural, kind in (("deployments", "Deployment"), ("replicasets", "ReplicaSet"))
            for each in self.server.objects(plural, "agents")
        ]
        deployer = self.deployer(digit)
        snapshot = deployer._snapshot_of(found, None, edge)
        state = self.state()
        attempt = Attempt(action="deploy", phase="done", release=snapshot.release, at=snapshot.at, by=snapshot.by)
        self.set_state(State(running=snapshot, before=state.running, attempt=attempt))
        return snapshot

    def state(self) -> State:
        """Return the record of deployments."""
        found = [each for each in self.server.objects("configmaps", "agents") if each["metadata"]["name"] == NAME]
        return msgspec.json.decode(found[0]["data"][KEY], type=State) if found else State()

    def set_state(self, state: State) -> None:
        """Replace the record of deployments."""
        store, data = self.server.store, {KEY: msgspec.json.encode(state).decode()}

        def write() -> None:
            if store.find("configmaps", "agents", NAME):
                store.update("configmaps", ("agents", NAME), lambda new: new.update(data=data))
            else:
                store.create("configmaps", {"metadata": {"name": NAME, "namespace": "agents"}, "data": data})

        self.server.call(write)

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


@contextmanager
def deploy_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Run a cluster with the Secrets of an installation; kubectl and helm are in the PATH."""
    monkeypatch.setenv("PATH", f"{kubernetes_tools.FOLDER}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GOGC", "off")  # a short program needs no garbage collection
    monkeypatch.setattr("infra.deploy.rollout.LOOK_S", 0.2)
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

    def run_deployments(self, *timestamps: str) -> None:
        """Let the account have deployments, of which the last one runs."""
        self._file.write_text(json.dumps({**self.read(), "kept": list(timestamps), "running": timestamps[-1]}))

    def fail(self, command: str, message: str) -> None:
        """Let a command fail from now on."""
        self._file.write_text(json.dumps({**self.read(), "failures": {command: message}}))

    def mend(self) -> None:
        """Let all commands succeed."""
        self._file.write_text(json.dumps({**self.read(), "failures": {}}))

    @property
    def _file(self) -> Path:
        return self.osls.parent / "account.json"


def edge_account(tmp_path: Path) -> Account:
    """Return an account without deployments."""
    made = Account(tmp_path / "checkout")
    for path in (made.osls, made.folder / PACKAGE):
        path.parent.mkdir(parents=True)
    made.package("package")
    (made.folder / "serverless.yml").write_text("service: swissbrain\n")
    program = (Path(__file__).parent / "osls_stand_in.py").read_text()
    made.osls.write_text(f"#!{sys.executable} -IS\n{program}")
    made.osls.chmod(0o755)
    (made.osls.parent / "account.json").write_text(json.dumps({"kept": [], "running": "", "calls": [], "failures": {}}))
    return made


RENDERED: dict[str, str] = {}
"""Rendered small overlays by their content, so that kubectl renders each once."""


def rendered_text(folder: Path) -> str:
    """Return the rendered objects of a small overlay."""
    content = (folder / "kustomization.yaml").read_text()
    if content not in RENDERED:
        RENDERED[content] = Programs(print).read("kubectl", "kustomize", str(folder))
    return RENDERED[content]


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


def whole_overlay(folder: Path) -> Path:
    """Return an overlay over that for kind, filled in, whose images are given by options."""
    made = folder / "whole"
    shutil.copytree(ROOT / "k8s", folder / "k8s", ignore=shutil.ignore_patterns("helm", "images"))
    made.mkdir()
    filled = (
        ("NetworkPolicy", "tools", "/spec/egress/2/to/0/ipBlock/cidr", "198.51.100.0/24"),
        (
            "ValidatingAdmissionPolicy",
            "swissbrain-agent-tools",
            "/spec/variables/0/expression",
            f"['{REGISTRY}/tools']",
        ),
    )
    patches = [
        {
            "target": {"kind": kind, "name": name},
            "patch": yaml.safe_dump([{"op": "replace", "path": path, "value": value}]),
        }
        for kind, name, path, value in filled
    ]
    overlay = {"resources": ["../k8s/overlays/kind"], "patches": patches}
    (made / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    return made


def marks(result: Result) -> dict[str, str]:
    """Return the mark of each check by its name."""
    return {line[2:18].strip(): line[0] for line in result.stdout.splitlines() if line and line[0] in "✓✗–"}


def patch(deployment: str, container: str, variable: dict[str, str]) -> str:
    """Return a patch that sets a variable of a Deployment."""
    spec = {"template": {"spec": {"containers": [{"name": container, "env": [variable]}]}}}
    meta = {"name": deployment, "namespace": "agents"}
    return str(yaml.safe_dump({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec}))


def add_secrets(server: KubeServer) -> None:
    """Make the Secrets of the example with values."""
    for each in yaml.safe_load_all((ROOT / "k8s/examples/secrets.yaml").read_text()):
        name, data = each["metadata"]["name"], dict.fromkeys(each["stringData"], SECRET)
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
        made = {"metadata": {"name": name, "namespace": "agents"}, "type": "Opaque", "data": encoded}
        server.call(lambda made=made: server.store.create("secrets", made))  # type: ignore[misc]
