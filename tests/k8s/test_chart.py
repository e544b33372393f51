"""The chart renders the same objects as the overlays."""

import copy
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.deploy.manifests import pod_specs
from scripts import check_manifests, kubernetes_tools
from scripts.check_manifests import Object
from tests.docs.pages import DOCS, ROOT, codes_in, rows
from tests.k8s import rendering
from tests.k8s.rendering import CHART, OVERLAYS, SECRETS_COMPONENTS, by_title, chart, overlay

pytestmark = rendering.needs_tools


def without_order(each: Object) -> Object:
    """Return an object with the variables of its containers by name: a patch of kustomize moves one to the front."""
    made = copy.deepcopy(each)
    for pod in pod_specs(made):
        for container in pod["containers"]:
            container["env"] = rendering.environment(container)
    return made


@pytest.mark.parametrize("name", OVERLAYS)
def test_each_object_of_the_chart_equals_that_of_the_overlay(name: str) -> None:
    from_chart, from_overlay = by_title(chart(name)), by_title(overlay(name))
    assert set(from_chart) == set(from_overlay)
    for title, each in from_overlay.items():
        assert without_order(from_chart[title]) == without_order(each), title


def test_the_api_waits_for_redis_at_a_rollout_and_stays_reachable_without_it() -> None:
    """Without Redis no pod restarts or leaves the Service: somebody has to delete runs to free its memory."""
    (name, *_) = OVERLAYS
    (container,) = by_title(overlay(name))["Deployment/agents/agent-api"]["spec"]["template"]["spec"]["containers"]
    for probe in ("readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["path"] == "/health"
    startup = container["startupProbe"]
    assert startup["httpGet"]["path"] == "/ready"
    day_s = 86_400
    assert startup["failureThreshold"] * startup["periodSeconds"] >= day_s


@pytest.mark.parametrize("name", OVERLAYS)
def test_no_variable_refers_to_another_so_their_order_has_no_meaning(name: str) -> None:
    references = [path for each in overlay(name) for path, value in check_manifests.values(each) if "$(" in str(value)]
    assert references == []


@pytest.mark.parametrize("name", SECRETS_COMPONENTS)
def test_the_chart_has_the_external_secrets_of_the_components(name: str, tmp_path: Path) -> None:
    # kubectl reads only below the folder that it renders.
    shutil.copytree(ROOT / "k8s", tmp_path / "k8s", ignore=shutil.ignore_patterns("helm", "images"))
    folder = tmp_path / "k8s" / "overlays" / name
    components = "".join(f"  - ../../components/{each}\n" for each in SECRETS_COMPONENTS[name])
    kustomization = folder / "kustomization.yaml"
    kustomization.write_text(kustomization.read_text().replace("components:\n", f"components:\n{components}"))
    rendered = check_manifests.load(rendering.run(kubernetes_tools.KUBECTL, "kustomize", folder))

    expected: dict[str, Any] = by_title(chart(name, "--set", "externalSecrets.enabled=true"))

    found = {title: each for title, each in by_title(tuple(rendered)).items() if title.startswith("ExternalSecret/")}
    assert found == {title: each for title, each in expected.items() if title.startswith("ExternalSecret/")}
    assert {each["metadata"]["name"] for each in found.values()} == _secrets_of(overlay(name))


def test_the_api_is_left_out_of_the_chart_as_the_guide_leaves_it_out_of_an_overlay(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "k8s", tmp_path / "k8s", ignore=shutil.ignore_patterns("helm", "images"))
    kustomization = tmp_path / "k8s" / "overlays" / "exoscale-geneva" / "kustomization.yaml"
    (patch,) = re.findall(r"```yaml\n(  - target.*?)```", (DOCS / "deploy-kubernetes.md").read_text(), re.DOTALL)
    former = kustomization.read_text()
    kustomization.write_text(former[: former.index("  # The REST endpoint of the Upstash")] + patch)
    rendered = check_manifests.load(rendering.run(kubernetes_tools.KUBECTL, "kustomize", kustomization.parent))

    found, expected = by_title(tuple(rendered)), by_title(chart("exoscale-geneva", "--set", "api.enabled=false"))
    assert set(found) == set(expected)
    assert [title for title in found if "agent-api" in title] == []
    assert "agent-api" not in _secrets_of(tuple(rendered)) | _secrets_of(tuple(expected.values()))


def _secrets_of(objects: tuple[Object, ...]) -> set[str]:
    references = {ref["name"] for each in objects for _, ref in check_manifests.fields(each, "secretKeyRef")}
    targets = [
        ref["name"] for each in objects for _, refs in check_manifests.fields(each, "secretTargetRef") for ref in refs
    ]
    return references | set(targets)


@pytest.mark.parametrize("name", OVERLAYS)
def test_helm_finds_nothing_to_object_to(name: str) -> None:
    shown = rendering.run(kubernetes_tools.HELM, "lint", "--strict", CHART, "--values", CHART / f"values-{name}.yaml")
    assert "0 chart(s) failed" in shown


def test_the_browser_has_an_image_and_hosts() -> None:
    image = f"registry.example/tools-browser@sha256:{'b' * 64}"
    options = ("--set", f"images.toolsBrowser={image}", "--set", "tools.networkAllow=example.org *.example.com")
    variables = rendering.environment(rendering.containers(chart("in-cluster", *options))["agent-worker/worker"])
    assert variables["KUBERNETES_BROWSER_IMAGE"] == {"value": image}
    assert variables["TOOLS_NETWORK_ALLOW"] == {"value": "example.org *.example.com"}


def test_a_model_is_set_with_its_address() -> None:
    options = ("--set", "worker.llm.baseUrl=https://models.example/v1", "--set", "worker.llm.model=apertus-70b")
    variables = rendering.environment(rendering.containers(chart("in-cluster", *options))["agent-worker/worker"])
    assert variables["LLM_BASE_URL"] == {"value": "https://models.example/v1"}
    assert variables["LLM_MODEL"] == {"value": "apertus-70b"}


def test_the_guide_explains_each_value() -> None:
    table = [cells for cells in rows(DOCS / "deploy-kubernetes.md") if len(cells) == 4]
    explained = {name for cells in table for name in codes_in(cells[0]) if name.startswith(".")}
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    leaves = {re.sub(r"\[\d+\]", "", path) for path, _ in check_manifests.values(values)} | {
        ".worker.llm.baseUrl",
        ".worker.llm.model",
    }
    assert {re.sub(r"(quota)\.\w+", r"\1.*", path) for path in leaves} == explained


def _properties(schema: Object) -> dict[str, Any]:
    """Return the names of values of a schema, as the values file has them."""
    return {name: _properties(each) if "properties" in each else None for name, each in schema["properties"].items()}


def _names(values: Object) -> dict[str, Any]:
    return {name: _names(each) if isinstance(each, dict) and each else None for name, each in values.items()}


def test_the_schema_has_each_value_and_no_other() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert schema["properties"].pop("global") == {"type": "object"}  # helm adds it where this chart is part of another
    found = _properties(schema)
    assert found["worker"].pop("llm") == {"baseUrl": None, "model": None}
    expected = _names(yaml.safe_load((CHART / "values.yaml").read_text()))
    expected["worker"].pop("llm")
    assert found == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("worker.slot=3", "additional properties 'slot' not allowed"),
        ("worker.replicas=three", "at '/worker/replicas'"),
        ("s3.port=99999", "at '/s3/port'"),
        ("s3.cidrs={everywhere}", "at '/s3/cidrs/0'"),
        ("redis.inCluster=maybe", "at '/redis/inCluster'"),
        ("toolRepositories={a'b}", "at '/toolRepositories/0'"),
    ],
)
def test_a_value_that_the_chart_does_not_know_is_refused_and_not_ignored(value: str, message: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(message)):
        chart("kind", "--set", value)
