"""Objects of a deployment as kustomize or helm renders them, and what they need of the cluster."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from infra.deploy.cluster import Object, Right
from infra.deploy.description import IMAGE
from infra.deploy.errors import DeployFailed

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The parser in C, where PyYAML has it, because it is ten times as fast."""

PLACEHOLDERS = (
    re.compile(r"\.invalid/"),
    re.compile(r"@sha256:0{64}"),
    re.compile("CHANGE-ME"),
    re.compile(r"192\.0\.2\."),
)
"""What no real installation has: reserved names and addresses, a digest of zeros, and the text CHANGE-ME."""
WORKER, API = "agent-worker", "agent-api"
POLICY = "swissbrain-agent-tools"
TOOLS_VARIABLE, BROWSER_VARIABLE = "KUBERNETES_IMAGE", "KUBERNETES_BROWSER_IMAGE"
WORKLOADS = ("Deployment", "StatefulSet")


def load(text: str) -> list[Object]:
    """Return the objects of rendered manifests. Raises DeployFailed."""
    try:
        objects = [each for each in yaml.load_all(text, Loader=LOADER) if each]
    except yaml.YAMLError as exc:
        raise DeployFailed(f"the rendered manifests are no YAML: {' '.join(str(exc).split())[:200]}") from None
    for each in objects:
        if not isinstance(each, dict) or not isinstance(each.get("metadata"), dict) or "kind" not in each:
            raise DeployFailed("the rendered manifests hold a document that is no object with a kind and metadata")
        pods = list(pod_specs(each))
        if (each["kind"] in WORKLOADS and not pods) or not all(map(_has_containers, pods)):
            name = each["metadata"].get("name")
            raise DeployFailed(f"the rendered manifests hold a {each['kind']} {name} without containers")
    return objects


class Manifests:
    """Rendered objects. `text` is what is applied."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.objects = load(text)

    def named(self, kind: str, name: str) -> Object | None:
        """Return the object of a kind and a name, None if there is none."""
        return next((o for o in self.objects if o["kind"] == kind and o["metadata"].get("name") == name), None)

    def of(self, *kinds: str) -> list[Object]:
        """Return the objects of some kinds."""
        return [each for each in self.objects if each["kind"] in kinds]

    @property
    def workloads(self) -> list[str]:
        """Kind and name of all programs that are waited for, such as `deployment/agent-api`."""
        return [f"{each['kind'].lower()}/{each['metadata']['name']}" for each in self.of(*WORKLOADS)]

    @property
    def scales_to_zero(self) -> bool:
        """True if an autoscaler may stop all workers."""
        return any(not each["spec"].get("minReplicaCount", 0) for each in self.of("ScaledObject"))

    def images(self) -> dict[str, str]:
        """Return the images by the name of their Deployment or StatefulSet, and the image of the Jobs as `tools`."""
        found = {}
        for each in self.of(*WORKLOADS):
            container = each["spec"]["template"]["spec"]["containers"][0]
            found[each["metadata"]["name"]] = str(container.get("image", ""))
            for variable in container.get("env") or []:
                if variable.get("name") == TOOLS_VARIABLE:
                    found["tools"] = str(variable.get("value", ""))
        return found

    def problems(self, namespace: str) -> list[str]:
        """Return what is wrong with the objects, one line each: images by tag, values that are not filled in."""
        found = []
        worker = self.named("Deployment", WORKER)
        if worker is None:
            found.append(f"there is no Deployment {WORKER}")
        elif worker["metadata"].get("namespace") != namespace:
            found.append(f"{WORKER} is in the namespace {worker['metadata'].get('namespace')}, not in {namespace}")
        for name, image in self._all_images():
            if not IMAGE.fullmatch(image):
                found.append(f"{name} has the image '{image}', which is not given by its digest (NAME@sha256:DIGEST)")
            elif name in (TOOLS_VARIABLE, BROWSER_VARIABLE) and not self._admits(image):
                found.append(f"{name} is '{image}', but the admission policy does not name its repository")
        unfilled = sorted(
            {
                str(value)[:80]
                for each in self.objects
                for value in _values(each)
                if any(pattern.search(str(value)) for pattern in PLACEHOLDERS)
            }
        )
        return found + [f"still to be filled in: {value}" for value in unfilled]

    def _admits(self, image: str) -> bool:
        """Return whether the policy, if there is one, admits an image: its first variable lists repositories."""
        policy = self.named("ValidatingAdmissionPolicy", POLICY)
        return policy is None or f"'{image.partition('@')[0]}'" in str(policy["spec"]["variables"][0]["expression"])

    def _all_images(self) -> Iterator[tuple[str, str]]:
        for each in self.objects:
            for pod in pod_specs(each):
                for container in [*pod["containers"], *pod.get("initContainers", [])]:
                    yield f"{each['kind']} {each['metadata']['name']}", str(container.get("image", ""))
                    for variable in container.get("env") or []:
                        if variable.get("name") in (TOOLS_VARIABLE, BROWSER_VARIABLE):
                            yield variable["name"], str(variable.get("value", ""))

    def secret_keys(self) -> dict[str, set[str]]:
        """Return the keys that each Secret must have, by its name. Secrets that external-secrets makes are left out."""
        wanted: dict[str, set[str]] = {}
        for each in self.objects:
            for pod in pod_specs(each):
                for reference in _fields(pod, "secretKeyRef"):
                    if not reference.get("optional"):
                        wanted.setdefault(reference["name"], set()).add(reference["key"])
            if each["kind"] == "TriggerAuthentication":
                for target in each["spec"].get("secretTargetRef", []):
                    wanted.setdefault(target["name"], set()).add(target["key"])
        made = {each["spec"]["target"]["name"] for each in self.of("ExternalSecret")}
        return {name: keys for name, keys in wanted.items() if name not in made}

    def namespaces(self) -> list[str]:
        """Return the namespaces of all objects."""
        return sorted({each["metadata"]["namespace"] for each in self.objects if each["metadata"].get("namespace")})

    def rights(self, namespace: str) -> list[Right]:
        """Return the rights that a deployment and its way back need."""
        found = {
            (verb, _group(each), _plural(each["kind"]), each["metadata"].get("namespace", ""))
            for each in self.objects
            for verb in ("get", "create", "patch")
        }
        own = {
            *(("list", "", kind, namespace) for kind in ("secrets", "pods")),
            ("list", "", "namespaces", ""),
            *((verb, "", "configmaps", namespace) for verb in ("get", "create", "update")),
            *((verb, "coordination.k8s.io", "leases", namespace) for verb in ("get", "create", "update", "delete")),
            *(("list", "apps", kind, namespace) for kind in ("deployments", "replicasets", "statefulsets")),
        }
        return sorted(found | own)


def pod_specs(each: Object) -> Iterator[Object]:
    """Yield the pod of an object that makes pods."""
    spec = each.get("spec") or {}
    for template in (spec.get("template"), ((spec.get("jobTemplate") or {}).get("spec") or {}).get("template")):
        if isinstance(template, dict) and "spec" in template:
            yield template["spec"]


def _has_containers(pod: Any) -> bool:
    containers = pod.get("containers") if isinstance(pod, dict) else None
    return bool(containers) and isinstance(containers, list) and all(isinstance(each, dict) for each in containers)


def _group(each: Object) -> str:
    group, _, version = str(each.get("apiVersion", "")).rpartition("/")
    return group if version else ""


def _plural(kind: str) -> str:
    """Return the name of a resource as rules of access have it."""
    name = kind.lower()
    if name.endswith("y"):
        return f"{name[:-1]}ies"
    return f"{name}es" if name.endswith("s") else f"{name}s"


def _values(node: Any) -> Iterator[Any]:
    children: Sequence[Any] = list(node.values()) if isinstance(node, dict) else node if isinstance(node, list) else []
    if not isinstance(node, (dict, list)):
        yield node
    for child in children:
        yield from _values(child)


def _fields(node: Any, name: str) -> Iterator[Any]:
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        if key == name:
            yield child
        yield from _fields(child, name)
