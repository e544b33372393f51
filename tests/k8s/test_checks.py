"""Checks of `scripts.check_manifests` over the overlays, and over objects with one fault each."""

import copy
import io
import sys
from collections.abc import Callable

import pytest
import yaml

from scripts import check_manifests
from scripts.check_manifests import Object, problems
from tests.k8s import rendering
from tests.k8s.rendering import OVERLAYS, only, overlay, source

FILLED_IN = (
    ("registry.invalid/", "registry.example/"),
    ("localhost:5001/", "registry.example/"),
    ("CHANGE-ME", "real"),
    ("192.0.2.0/24", "203.0.113.0/24"),
    ("0" * 64, "a" * 64),
)
"""Values of a site in place of those to be filled in."""


@rendering.needs_tools
@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_has_no_problem_but_values_to_be_filled_in(name: str) -> None:
    assert problems(overlay(name), placeholders=True) == []
    found = problems(overlay(name))
    assert found
    assert [line for line in found if "is still to be filled in" not in line] == []


@rendering.needs_tools
@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_with_real_values_has_no_problem(name: str) -> None:
    text = yaml.safe_dump_all(overlay(name))
    for placeholder, value in FILLED_IN:
        text = text.replace(placeholder, value)
    assert problems(check_manifests.load(text)) == []


def test_the_examples_have_no_problem_but_values_to_be_filled_in() -> None:
    for path in ("examples/secrets.yaml", "examples/ingress.yaml"):
        assert problems(source(path), placeholders=True) == []
        assert len(problems(source(path))) >= 2


def deployment() -> Object:
    (found,) = (each for each in source("base/worker.yaml") if each["kind"] == "Deployment")
    return copy.deepcopy(found)


def pod(each: Object) -> Object:
    spec: Object = each["spec"]["template"]["spec"]
    return spec


def container(each: Object) -> Object:
    found: Object = pod(each)["containers"][0]
    return found


FAULTS: dict[str, tuple[str, Callable[[Object], object]]] = {
    "image by tag": ("the image must be", lambda d: container(d).update(image="registry.example/worker:1.2")),
    "image of the default registry": (
        "the image must be",
        lambda d: container(d).update(image="worker@sha256:" + "a" * 64),
    ),
    "digest of zeros": ("to be filled in", lambda _: None),
    "pull policy": ("imagePullPolicy must be", lambda d: container(d).update(imagePullPolicy="ifNotPresent")),
    "spread": (
        "whenUnsatisfiable must be",
        lambda d: pod(d)["topologySpreadConstraints"][0].update(whenUnsatisfiable="Schedule"),
    ),
    "quantity": ("no quantity", lambda d: container(d)["resources"]["requests"].update(memory="1 GB")),
    "size of a volume": ("no quantity", lambda d: pod(d)["volumes"][0]["emptyDir"].update(sizeLimit="4GiB")),
    "request above limit": ("above its limit", lambda d: container(d)["resources"]["requests"].update(memory="2Gi")),
    "no limit of memory": ("memory limited", lambda d: container(d)["resources"].pop("limits")),
    "name": ("lower-case letters", lambda d: d["metadata"].update(name="agent_worker")),
    "label": ("no value of a label", lambda d: d["metadata"]["labels"].update(version="1.0 (new)")),
    "number as a label": ("no value of a label", lambda d: d["metadata"]["labels"].update(version=1)),
    "name of a port": (
        "more than 15 characters",
        lambda d: container(d)["ports"][0].update(name="health-of-the-worker"),
    ),
    "number in words": ("replicas must be a number", lambda d: d["spec"].update(replicas="three")),
    "negative number": ("replicas must be a number", lambda d: d["spec"].update(replicas=-1)),
    "number of a port": ("must be a number from 1", lambda d: container(d)["ports"][0].update(containerPort=99999)),
    "range of addresses": ("no range of addresses", lambda d: d["spec"].update(cidr="10.0.0.1/24")),
    "root": ("without root", lambda d: pod(d)["securityContext"].update(runAsUser=0)),
    "root allowed": ("without root", lambda d: pod(d)["securityContext"].pop("runAsNonRoot")),
    "seccomp": ("seccomp", lambda d: pod(d)["securityContext"].pop("seccompProfile")),
    "token": ("service account", lambda d: pod(d).pop("automountServiceAccountToken")),
    "network of the host": ("namespaces of the host", lambda d: pod(d).update(hostNetwork=True)),
    "folder of the host": ("is none of", lambda d: pod(d)["volumes"].append({"name": "h", "hostPath": {"path": "/"}})),
    "privileges": (
        "privileges must not grow",
        lambda d: container(d)["securityContext"].pop("allowPrivilegeEscalation"),
    ),
    "capabilities": ("capabilities", lambda d: container(d)["securityContext"].update(capabilities={"drop": ["all"]})),
    "writable root": ("read-only", lambda d: container(d)["securityContext"].pop("readOnlyRootFilesystem")),
    "root in the container": ("must not change", lambda d: container(d)["securityContext"].update(runAsUser=0)),
    "port of the host": ("ports of the host", lambda d: container(d)["ports"][0].update(hostPort=8081)),
}
"""Changes of a Deployment, each with words of the line that names it."""


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_and_named_with_its_object(fault: str) -> None:
    words, apply = FAULTS[fault]
    each = deployment()
    apply(each)
    found = [line for line in problems([each], placeholders="filled in" not in words) if words in line]
    assert found
    assert all(line.startswith("Deployment/agents/") for line in found)


def test_the_unchanged_deployment_has_none_of_these_faults() -> None:
    assert problems([deployment()], placeholders=True) == []


def test_an_object_that_stands_twice_is_found() -> None:
    assert problems([deployment(), deployment()], placeholders=True) == [
        "Deployment/agents/agent-worker: stands here twice"
    ]


@pytest.mark.parametrize(
    ("text", "options", "code"),
    [
        ("{apiVersion: v1, kind: Namespace, metadata: {name: a}}", [], 0),
        ("{apiVersion: v1, kind: Namespace, metadata: {name: CHANGE-ME}}", [], 1),
        ("", [], 1),
        ("a: [", [], 2),
        ("just text", [], 2),
        ("{apiVersion: v1, kind: Namespace}", [], 2),
        ("{apiVersion: v1, kind: Namespace, metadata: {name: a}}", ["/there/is/no/such/file"], 2),
    ],
)
def test_the_exit_code_of_the_program(
    text: str, options: list[str], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["check_manifests", *options])
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    assert check_manifests.main() == code
    shown = capsys.readouterr()
    assert len((shown.out + shown.err).splitlines()) == (0 if code == 0 else 2 if "CHANGE" in text else 1)


@rendering.needs_tools
def test_a_worker_has_more_time_to_end_than_its_drain_takes() -> None:
    for name in OVERLAYS:
        worker = only(overlay(name), "Deployment", "agent-worker")
        grace_s = int(rendering.environment(container(worker))["WORKER_GRACE_S"]["value"])
        assert pod(worker)["terminationGracePeriodSeconds"] >= grace_s + 20


@rendering.needs_tools
@pytest.mark.parametrize("name", OVERLAYS)
def test_the_jobs_of_the_worker_come_from_a_repository_of_the_policy(name: str) -> None:
    worker = rendering.environment(container(only(overlay(name), "Deployment", "agent-worker")))
    policy = only(overlay(name), "ValidatingAdmissionPolicy", "swissbrain-agent-tools")
    repositories = policy["spec"]["variables"][0]["expression"].strip("[]").replace("'", "").split(", ")
    assert worker["KUBERNETES_IMAGE"]["value"].partition("@")[0] in repositories


@pytest.mark.parametrize(
    ("spec", "labels"), [({}, 5), ({"template": {"spec": {"containers": [5]}}}, {}), ({"template": 5}, 5)]
)
def test_a_field_of_a_wrong_type_is_a_problem_of_its_object(spec: Object, labels: object) -> None:
    each = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "labels": labels}, "spec": spec}
    (line,) = problems([each])
    assert line == "Deployment/a: a field is missing, or has another type than objects of this kind have"


@pytest.mark.parametrize("text", ["{kind: Pod, apiVersion: v1, metadata: {name: 5}}", "{kind: 5, metadata: {}}", "[5]"])
def test_a_document_that_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no object with apiVersion"):
        check_manifests.load(text)
