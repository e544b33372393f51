"""Rendered manifests of `k8s/`: the overlays by kubectl, the chart by helm."""

import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from infra.deploy.manifests import pod_specs
from scripts import check_manifests, kubernetes_tools
from scripts.check_manifests import Object
from tests.docs.pages import ROOT

OVERLAYS = ("exoscale-geneva", "in-cluster", "kind")
CHART = ROOT / "k8s" / "helm" / "swissbrain"
SECRETS_COMPONENTS = {
    "exoscale-geneva": ("external-secrets",),
    "in-cluster": ("external-secrets", "external-secrets-valkey"),
}
"""Components for external-secrets that an overlay can have."""

needs_tools = pytest.mark.skipif(
    not kubernetes_tools.are_installed(),
    reason="run 'make kubernetes-tools', which installs kubectl, helm and the schemas",
)


def run(*command: str | Path) -> str:
    """Return the standard output of a program, which must succeed."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@cache
def overlay(name: str) -> tuple[Object, ...]:
    """Return the objects of an overlay."""
    return tuple(check_manifests.load(run(kubernetes_tools.KUBECTL, "kustomize", f"k8s/overlays/{name}")))


@cache
def chart(name: str, *options: str) -> tuple[Object, ...]:
    """Return the objects of the chart with the values of an overlay."""
    values = CHART / f"values-{name}.yaml"
    text = run(kubernetes_tools.HELM, "template", "swissbrain", CHART, "--values", values, *options)
    return tuple(check_manifests.load(text))


def source(path: str) -> list[Object]:
    """Return the objects of a file in `k8s/`."""
    return check_manifests.load((ROOT / "k8s" / path).read_text())


def by_title(objects: tuple[Object, ...]) -> dict[str, Object]:
    """Return objects by kind, namespace and name."""
    return {check_manifests.title(each): each for each in objects}


def only(objects: tuple[Object, ...], kind: str, name: str) -> Object:
    """Return the object with a kind and a name."""
    (found,) = (each for each in objects if (each["kind"], each["metadata"]["name"]) == (kind, name))
    return found


def containers(objects: tuple[Object, ...]) -> dict[str, Object]:
    """Return the containers of all pods, by the name of the object and of the container."""
    return {
        f"{each['metadata']['name']}/{container['name']}": container
        for each in objects
        for pod in pod_specs(each)
        for container in pod["containers"]
    }


def environment(container: Object) -> dict[str, Any]:
    """Return the variables of a container by name, without their order."""
    entries = container.get("env", [])
    named = {entry["name"]: {key: value for key, value in entry.items() if key != "name"} for entry in entries}
    assert len(named) == len(entries), "a variable is set twice"
    return named
