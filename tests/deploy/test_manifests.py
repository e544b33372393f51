"""What a deployment reads from rendered objects: Secrets, rights, images; and what it refuses."""

import pytest

from infra.deploy.errors import DeployFailed
from infra.deploy.manifests import Manifests
from scripts import check_manifests
from tests.docs.pages import ROOT
from tests.k8s.rendering import needs_tools, run

EXTERNAL = """
apiVersion: external-secrets.io/v1
kind: ExternalSecret
metadata: {name: agent-worker, namespace: agents}
spec: {target: {name: agent-worker}}
"""


def example_secrets() -> dict[str, set[str]]:
    found = check_manifests.load((ROOT / "k8s" / "examples" / "secrets.yaml").read_text())
    return {each["metadata"]["name"]: set(each["stringData"]) for each in found}


@needs_tools
def test_every_secret_that_is_asked_for_is_in_the_example_and_placeholders_are_found() -> None:
    text = run("build/kubernetes/kubectl", "kustomize", "k8s/overlays/in-cluster")
    manifests = Manifests(text)
    wanted, example = manifests.secret_keys(), example_secrets()
    assert wanted.keys() == example.keys()
    assert {name: keys - example[name] for name, keys in wanted.items() if keys - example[name]} == {}
    assert "LLM_API_KEY" not in wanted["agent-worker"]
    assert any("192.0.2.0/24" in line for line in manifests.problems("agents"))
    assert manifests.scales_to_zero
    rights = manifests.rights("agents")
    assert ("patch", "keda.sh", "scaledobjects", "agents") in rights
    assert ("create", "networking.k8s.io", "networkpolicies", "agent-tools") in rights
    assert ("create", "scheduling.k8s.io", "priorityclasses", "") in rights
    made_elsewhere = Manifests(f"{text}\n---\n{EXTERNAL}").secret_keys()
    assert wanted.keys() - made_elsewhere.keys() == {"agent-worker"}


@pytest.mark.parametrize("text", ["a: [", "- 1", "kind: Pod", "just text"])
def test_what_is_no_list_of_objects_is_refused(text: str) -> None:
    with pytest.raises(DeployFailed, match="rendered manifests"):
        Manifests(text)


POD = "{template: {spec: {containers: [{name: worker}]}}}"


def test_another_namespace_than_that_of_the_description_is_a_problem() -> None:
    meta = "{name: agent-worker, namespace: other}"
    found = Manifests(f"apiVersion: apps/v1\nkind: Deployment\nmetadata: {meta}\nspec: {POD}\n").problems("agents")
    assert "agent-worker is in the namespace other, not in agents" in found


@pytest.mark.parametrize("variable", ["KUBERNETES_IMAGE", "KUBERNETES_BROWSER_IMAGE"])
def test_images_of_jobs_are_given_by_digest(variable: str) -> None:
    env = f"[{{name: {variable}, value: 'registry.example/tools:1'}}]"
    image = f"registry.example/worker@sha256:{'1' * 64}"
    pod = f"{{containers: [{{name: worker, image: '{image}', env: {env}}}]}}"
    meta = "{name: agent-worker, namespace: agents}"
    text = f"apiVersion: apps/v1\nkind: Deployment\nmetadata: {meta}\nspec: {{template: {{spec: {pod}}}}}\n"
    (problem,) = Manifests(text).problems("agents")
    assert problem.startswith(f"{variable} has the image 'registry.example/tools:1'")


@needs_tools
def test_the_policy_must_admit_the_images_of_jobs() -> None:
    text = run("build/kubernetes/kubectl", "kustomize", "k8s/overlays/in-cluster")
    policy = "the admission policy does not name its repository"
    assert not any(policy in line for line in Manifests(text).problems("agents"))
    moved = text.replace("value: registry.invalid/swissbrain/tools@", "value: registry.example/tools@")
    assert len([line for line in Manifests(moved).problems("agents") if policy in line]) == 1
