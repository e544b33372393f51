"""Every object of the manifests against the strict schemas of Kubernetes, or against the list of a custom resource."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from referencing import Registry, Resource

from scripts import kubernetes_tools
from scripts.check_manifests import Object, title
from scripts.custom_resources import is_known, unknown_fields
from tests.k8s import rendering
from tests.k8s.rendering import OVERLAYS, chart, overlay, source

pytestmark = rendering.needs_tools

EXAMPLES = ("examples/secrets.yaml", "examples/ingress.yaml")


@cache
def contents(path: Path) -> Any:
    return json.loads(path.read_text())


@cache
def validator(version: str, kind: str, api_version: str) -> Draft202012Validator:
    """Return the validator of a kind, from `x-kubernetes-group-version-kind` in the names of the files."""
    folder = kubernetes_tools.schemas(version)
    group, _, number = api_version.rpartition("/")
    name = "-".join(part for part in (kind.lower(), group.split(".")[0], number) if part)
    schema = contents(folder / f"{name}.json")
    definitions = Resource.from_contents(contents(folder / "_definitions.json"))
    return Draft202012Validator(schema, registry=Resource.from_contents(schema) @ (definitions @ Registry()))


def faults(version: str, each: Object) -> list[str]:
    if is_known(each):
        return list(unknown_fields(each))
    found = validator(version, each["kind"], each["apiVersion"]).iter_errors(each)
    return [f"{title(each)}: {error.json_path}: {error.message}" for error in found]


@pytest.mark.parametrize("version", kubernetes_tools.VERSIONS)
@pytest.mark.parametrize("name", OVERLAYS)
def test_each_object_of_an_overlay_is_valid(name: str, version: str) -> None:
    assert [fault for each in overlay(name) for fault in faults(version, each)] == []


@pytest.mark.parametrize("version", kubernetes_tools.VERSIONS)
def test_the_examples_and_the_external_secrets_are_valid(version: str) -> None:
    examples = [each for path in EXAMPLES for each in source(path)]
    secrets = list(chart("in-cluster", "--set", "externalSecrets.enabled=true"))
    assert [fault for each in [*examples, *secrets] for fault in faults(version, each)] == []


@pytest.mark.parametrize("version", kubernetes_tools.VERSIONS)
def test_an_unknown_field_and_a_wrong_type_are_found(version: str) -> None:
    deployment = rendering.only(overlay("in-cluster"), "Deployment", "agent-api")
    misspelt = {**deployment, "spec": {**deployment["spec"], "replica": 2}}
    wrong = {**deployment, "spec": {**deployment["spec"], "replicas": "2"}}
    assert len(faults(version, misspelt)) == len(faults(version, wrong)) == 1


def test_an_unknown_field_of_a_custom_resource_is_found() -> None:
    scaled = rendering.only(overlay("in-cluster"), "ScaledObject", "agent-worker")
    misspelt = {**scaled, "spec": {**scaled["spec"], "maxReplicas": 3, "pollingInterval": "60"}}
    assert faults("1.36", misspelt) == [
        ".spec.pollingInterval must be of the type int, not str",
        ".spec.maxReplicas is not in the list of fields",
    ]
