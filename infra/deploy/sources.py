"""Both ways to describe the objects of the cluster: an overlay for kustomize, and the chart for helm."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import msgspec
import yaml

from infra.deploy.cluster import KubectlCluster
from infra.deploy.description import Description
from infra.deploy.manifests import API, TOOLS_VARIABLE, WORKER, Manifests
from infra.deploy.programs import ProgramFailed

NAME_LABEL = "app.kubernetes.io/name"
BASE = "everything else"
HELM_NAMESPACE = "default"
"""Namespace of the records of helm: the chart makes the other namespaces itself."""
HELM_TIMEOUT = "5m"


class Source(Protocol):
    """Way to render the objects and to apply them."""

    manifests: Manifests
    command: str

    def apply(self, stage: str, *, last: bool) -> None:
        """Apply a stage: BASE, WORKER or API. `last`: no other stage follows. Raises ProgramFailed."""


@contextmanager
def rendered(description: Description, cluster: KubectlCluster) -> Iterator[Source]:
    """Render the objects; yield their source. Raises DeployFailed."""
    if description.chart is not None:
        yield Chart(description, cluster)
        return
    with tempfile.TemporaryDirectory(prefix="swissbrain-deploy-") as folder:
        yield Overlay(description, cluster, Path(folder).resolve())


class Overlay:
    """Overlay for kustomize. Images of the description replace its own by a second overlay, which is shown."""

    def __init__(self, description: Description, cluster: KubectlCluster, folder: Path) -> None:
        self._cluster = cluster
        self.command = f"kubectl kustomize {description.overlay}"
        text = self._render(str(description.overlay))
        if description.images:
            over = _with_images(Manifests(text), description, folder)
            (folder / "kustomization.yaml").write_text(yaml.safe_dump(over, sort_keys=False))
            self.command = f"kubectl kustomize {folder}"
            text = self._render(str(folder))
            cluster.programs.say(f"# {folder}/kustomization.yaml: {json.dumps(over)}")
        self.manifests = Manifests(text)

    def _render(self, folder: str) -> str:
        return self._cluster.programs.read("kubectl", "kustomize", folder)

    def apply(self, stage: str, *, last: bool) -> None:
        """Apply the objects of a stage by their label."""
        del last
        chosen = f"{NAME_LABEL} notin ({WORKER},{API})" if stage == BASE else f"{NAME_LABEL}={stage}"
        command = self._cluster.kubectl("apply", "--filename=-", f"--selector={chosen}")
        self._cluster.programs.change(*command, stdin=self.manifests.text, source=self.command)


def _with_images(under: Manifests, description: Description, folder: Path) -> dict[str, Any]:
    """Return a kustomization over an overlay that replaces its images."""
    present = {WORKER: "worker", API: "api", "valkey": "valkey", "valkey-gateway": "api"}
    replaced: dict[str, dict[str, str]] = {}
    for workload, image in under.images().items():
        wanted = description.images.get(present.get(workload, ""))
        if wanted is not None:
            name, digest = wanted.split("@")
            former = image.partition("@")[0]
            replaced[former] = {"name": former, "newName": name, "digest": digest}
    over: dict[str, Any] = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(Path(str(description.overlay)).resolve(), folder)],
        "images": list(replaced.values()),
    }
    if tools := description.images.get("tools"):
        container = {"name": "worker", "env": [{"name": TOOLS_VARIABLE, "value": tools}]}
        patch = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": WORKER, "namespace": description.namespace},
            "spec": {"template": {"spec": {"containers": [container]}}},
        }
        over["patches"] = [{"patch": yaml.safe_dump(patch)}]
    return over


class Chart:
    """Chart for helm, which upgrades all parts at once.

    For an order there are two upgrades: in the first, the part that comes later keeps its present image.
    """

    def __init__(self, description: Description, cluster: KubectlCluster) -> None:
        self._description = description
        self._cluster = cluster
        self._helm = ("helm", f"--kube-context={cluster.context}", f"--namespace={HELM_NAMESPACE}")
        self._given = [f"--values={value}" for value in description.values]
        self._given += [f"--set-string=images.{name}={image}" for name, image in sorted(description.images.items())]
        render = ("helm", "template", description.helm_release, str(description.chart), *self._given)
        self.command = " ".join(render)
        self.manifests = Manifests(cluster.programs.read(*render))

    def revision(self) -> int | None:
        """Return the number of the last revision that was deployed, None if there is none. Raises ProgramFailed."""
        found = self._history()
        deployed = [int(each["revision"]) for each in found if each["status"] == "deployed"]
        return max(deployed, default=None)

    def _history(self) -> list[dict[str, Any]]:
        try:
            text = self._cluster.programs.read(*self._helm, "history", self._description.helm_release, "--output=json")
        except ProgramFailed as exc:
            # Without a cluster, a dry run shows the steps all the same.
            if "release: not found" in str(exc) or self._cluster.programs.dry_run:
                return []
            raise
        try:
            return msgspec.json.decode(text, type=list[dict[str, Any]])
        except msgspec.MsgspecError:
            raise ProgramFailed(f"helm gave a history that is none: {' '.join(text.split())[:100]}") from None

    def apply(self, stage: str, *, last: bool) -> None:
        """Upgrade; unless this is the last stage, the part that comes later keeps its present image."""
        if stage == BASE:
            self._unlock()
            return
        later = {WORKER: (API, "api"), API: (WORKER, "worker")}[stage]
        present = None if last else self._present_image(later[0])
        kept = [] if present is None else [f"--set-string=images.{later[1]}={present}"]
        self._cluster.programs.change(
            *self._helm,
            *("upgrade", "--install", self._description.helm_release, str(self._description.chart)),
            *self._given,
            *kept,
            *("--take-ownership", f"--timeout={HELM_TIMEOUT}"),
        )

    def _present_image(self, deployment: str) -> str | None:
        try:
            found = self._cluster.find("deployment", deployment)
        except ProgramFailed:
            if not self._cluster.programs.dry_run:
                raise
            return None
        return None if found is None else str(found["spec"]["template"]["spec"]["containers"][0]["image"])

    def roll_back(self, revision: int) -> None:
        """Return to a revision. Raises ProgramFailed."""
        self._unlock()
        self._cluster.programs.change(
            *self._helm, "rollback", self._description.helm_release, str(revision), f"--timeout={HELM_TIMEOUT}"
        )

    def _unlock(self) -> None:
        """Remove the record of an upgrade whose helm was killed: helm refuses to work beside it.

        The Lease of the deployment is held, so no helm is at work.
        """
        if any(str(each["status"]).startswith("pending-") for each in self._history()):
            states = "pending-install,pending-upgrade,pending-rollback"
            chosen = f"owner=helm,name={self._description.helm_release},status in ({states})"
            self._cluster.programs.change(
                *self._cluster.kubectl(
                    f"--namespace={HELM_NAMESPACE}", "delete", "secret", f"--selector={chosen}", "--ignore-not-found"
                )
            )
