"""Check of rendered manifests: `kubectl kustomize k8s/overlays/NAME | python -m scripts.check_manifests`.

Finds what schemas do not: values that still name no real thing, images without a digest, pods beyond the restricted
profile, and words, quantities and names that only an API server would refuse. One line for each problem.
"""

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from decimal import Decimal
from ipaddress import ip_network
from typing import Any, TypeAlias

import yaml

from infra.deploy.description import IMAGE
from infra.deploy.manifests import LOADER, PLACEHOLDERS, pod_specs
from scripts.custom_resources import unknown_fields

Object: TypeAlias = dict[str, Any]
Located: TypeAlias = tuple[str, Any]

QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?")
FACTORS = {"": Decimal(1), "m": Decimal("0.001")}
FACTORS |= {unit: Decimal(1000) ** (power + 1) for power, unit in enumerate("kMGTPE")}
FACTORS |= {f"{unit}i": Decimal(1024) ** (power + 1) for power, unit in enumerate("KMGTPE")}
NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
LABEL = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?")
PORT_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
NUMBERS = {
    **dict.fromkeys(("replicas", "minReplicaCount", "maxReplicaCount"), (0, 1000)),
    **dict.fromkeys(("port", "targetPort", "containerPort"), (1, 65535)),
}
NAMED = frozenset({"port", "targetPort"})
"""Numbers in whose place a name may stand, or an object of an Ingress."""
WORDS: dict[str, set[str]] = {
    "accessModes": {"ReadWriteOnce", "ReadWriteOncePod", "ReadOnlyMany", "ReadWriteMany"},
    "concurrencyPolicy": {"Allow", "Forbid", "Replace"},
    "creationPolicy": {"Owner", "Orphan", "Merge", "None"},
    "dnsPolicy": {"ClusterFirst"},
    "failurePolicy": {"Fail"},
    "fsGroupChangePolicy": {"Always", "OnRootMismatch"},
    "imagePullPolicy": {"IfNotPresent"},
    "metricType": {"AverageValue", "Value"},
    "operations": {"CREATE", "UPDATE", "DELETE", "CONNECT"},
    "policyTypes": {"Ingress", "Egress"},
    "protocol": {"TCP", "UDP"},
    "restartPolicy": {"Always", "Never", "OnFailure"},
    "unhealthyPodEvictionPolicy": {"AlwaysAllow", "IfHealthyBudget"},
    "validationActions": {"Deny", "Audit", "Warn"},
    "verbs": {"create", "delete", "get", "list", "patch", "update", "watch"},
    "whenDeleted": {"Retain", "Delete"},
    "whenScaled": {"Retain", "Delete"},
    "whenUnsatisfiable": {"ScheduleAnyway", "DoNotSchedule"},
}
"""Allowed words of fields that have these names in every kind of object which we use."""
VOLUMES = {"configMap", "emptyDir", "persistentVolumeClaim"}
HOST_FIELDS = ("hostNetwork", "hostPID", "hostIPC")


def load(text: str) -> list[Object]:
    """Return the objects of a rendered file. Raises YAMLError, and ValueError for what is no object of Kubernetes."""
    objects = [each for each in yaml.load_all(text, Loader=LOADER) if each]
    for each in objects:
        metadata = each.get("metadata") if isinstance(each, dict) else None
        texts = (
            [each.get("apiVersion"), each.get("kind"), metadata.get("name")] if isinstance(metadata, dict) else [None]
        )
        if not all(isinstance(text, str) for text in texts) or not isinstance(each.get("spec", {}), dict):
            raise ValueError("a document is no object with apiVersion, kind and metadata.name")
    return objects


def problems(objects: Sequence[Object], *, placeholders: bool = False) -> list[str]:
    """Return a line for each problem. `placeholders` allows values that are still to be filled in."""
    found: list[str] = []
    for each in objects:
        checks = (_names, _words, _numbers, _quantities, _pods, unknown_fields)
        try:
            lines = [line for check in checks for line in check(each)]
        except (TypeError, AttributeError, LookupError):
            lines = ["a field is missing, or has another type than objects of this kind have"]
        if not placeholders:
            lines += _placeholders(each)
        found += [f"{title(each)}: {line}" for line in lines]
    titles = [title(each) for each in objects]
    return found + [f"{name}: stands here twice" for name in sorted({n for n in titles if titles.count(n) > 1})]


def title(each: Object) -> str:
    """Return kind, namespace and name of an object."""
    metadata = each["metadata"]
    return "/".join(part for part in (each["kind"], metadata.get("namespace"), metadata["name"]) if part)


def values(node: Any, path: str = "") -> Iterator[Located]:
    """Yield path and value of all scalars below a node."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else None
    if children is None:
        yield path, node
        return
    for key, child in children:
        yield from values(child, f"{path}.{key}" if isinstance(node, dict) else f"{path}[{key}]")


def fields(node: Any, name: str, path: str = "") -> Iterator[Located]:
    """Yield path and value of all fields with a name below a node."""
    if isinstance(node, dict):
        for key, child in node.items():
            if key == name:
                yield f"{path}.{key}", child
            yield from fields(child, name, f"{path}.{key}")
    elif isinstance(node, list):
        for number, child in enumerate(node):
            yield from fields(child, name, f"{path}[{number}]")


def quantity(text: object) -> Decimal | None:
    """Return a quantity of Kubernetes as a number, None if it is not one."""
    match = QUANTITY.fullmatch(str(text))
    return Decimal(match[1]) * FACTORS[match[2] or ""] if match else None


def _placeholders(each: Object) -> Iterator[str]:
    for path, value in values(each):
        if any(pattern.search(str(value)) for pattern in PLACEHOLDERS):
            yield f"{path} is still to be filled in: {str(value)[:120]}"


def _names(each: Object) -> Iterator[str]:
    if not NAME.fullmatch(each["metadata"]["name"]) or len(each["metadata"]["name"]) > 63:
        yield "the name must consist of at most 63 lower-case letters, digits, '-' and '.'"
    for kind in ("labels", "matchLabels"):
        for path, labels in fields(each, kind):
            for key, value in labels.items():
                if not isinstance(value, str) or not LABEL.fullmatch(value) or len(value) > 63:
                    yield f"{path}.{key} is no value of a label: {value!r}"
    for path, ports in fields(each, "ports"):
        for port in ports:
            name = port.get("name", "p") if isinstance(port, dict) else "p"
            if not PORT_NAME.fullmatch(name) or len(name) > 15:
                yield f"{path} has a name of more than 15 characters, or with others than a-z, 0-9 and '-': {name}"


def _words(each: Object) -> Iterator[str]:
    for name, allowed in WORDS.items():
        for path, value in fields(each, name):
            for word in value if isinstance(value, list) else [value]:
                if word not in allowed:
                    yield f"{path} must be {' or '.join(sorted(allowed))}, not {word!r}"


def _numbers(each: Object) -> Iterator[str]:
    for name, (low, high) in NUMBERS.items():
        for path, value in fields(each, name):
            is_number = isinstance(value, int) and not isinstance(value, bool)
            if not (low <= value <= high if is_number else isinstance(value, str | dict) and name in NAMED):
                yield f"{path} must be a number from {low} to {high}, not {value!r}"
    for path, value in fields(each, "cidr"):
        try:
            ip_network(value)
        except ValueError:
            yield f"{path} is no range of addresses such as 203.0.113.0/24: {value!r}"


def _quantities(each: Object) -> Iterator[str]:
    names = ("requests", "limits", "hard", "max", "default", "defaultRequest")
    found = [
        item for name in names for _, group in fields(each, name) if isinstance(group, dict) for item in group.items()
    ]
    found += [("sizeLimit", size) for _, size in fields(each, "sizeLimit")]
    for name, value in found:
        if quantity(value) is None:
            yield f"{name} is no quantity such as 500m or 2Gi: {value!r}"
    for _, resources in fields(each, "resources"):
        if isinstance(resources, dict):
            yield from _over_limit(resources)


def _over_limit(resources: Object) -> Iterator[str]:
    limits = resources.get("limits", {})
    for name, value in resources.get("requests", {}).items():
        wanted, most = quantity(value), quantity(limits.get(name, ""))
        if wanted is not None and most is not None and wanted > most:
            yield f"the request of {name} is above its limit"


def _pods(each: Object) -> Iterator[str]:
    for pod in pod_specs(each):
        security = pod.get("securityContext", {})
        if security.get("runAsNonRoot") is not True or security.get("runAsUser", 0) == 0:
            yield "the pod must run without root (runAsNonRoot, runAsUser)"
        if security.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield "the pod must have the seccomp profile RuntimeDefault"
        if "automountServiceAccountToken" not in pod or "serviceAccountName" not in pod:
            yield "the pod must name its service account, and whether it gets a token"
        if any(pod.get(name) for name in HOST_FIELDS):
            yield "the pod must not use namespaces of the host"
        for volume in pod.get("volumes", []):
            if set(volume) - {"name"} - VOLUMES:
                yield f"the volume {volume['name']} is none of {', '.join(sorted(VOLUMES))}"
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            yield from (f"container {container['name']}: {line}" for line in _container(container))


def _container(container: Object) -> Iterator[str]:
    if not IMAGE.fullmatch(container["image"]):
        yield f"the image must be REGISTRY/NAME@sha256:DIGEST, not {container['image']!r}"
    security = container.get("securityContext", {})
    if security.get("allowPrivilegeEscalation") is not False or security.get("privileged"):
        yield "privileges must not grow (allowPrivilegeEscalation: false)"
    if security.get("capabilities") != {"drop": ["ALL"]}:
        yield "all capabilities must be dropped, and none added"
    if security.get("readOnlyRootFilesystem") is not True:
        yield "the root file system must be read-only"
    if set(security) & {"runAsUser", "runAsNonRoot", "seccompProfile", "seLinuxOptions", "procMount"}:
        yield "the container must not change what the pod sets"
    resources = container.get("resources", {})
    if not {"cpu", "memory"} <= set(resources.get("requests", {})) or "memory" not in resources.get("limits", {}):
        yield "CPU and memory must be requested, and memory limited"
    for port in container.get("ports", []):
        if "hostPort" in port:
            yield "ports of the host must not be used"


def main() -> int:
    """Check a file or standard input; return 1 if there is a problem."""
    parser = argparse.ArgumentParser(prog="check_manifests", description="Checks rendered manifests.")
    parser.add_argument("file", nargs="?", default="-", help="rendered manifests; default: standard input")
    parser.add_argument("--placeholders", action="store_true", help="allow values that are still to be filled in")
    options = parser.parse_args()
    try:
        with sys.stdin if options.file == "-" else open(options.file, encoding="utf-8") as file:  # noqa: PTH123
            objects = load(file.read())
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        print(f"check_manifests: {options.file} cannot be read: {reason}", file=sys.stderr)  # noqa: T201
        return 2
    found = problems(objects, placeholders=options.placeholders)
    for line in found:
        print(line)  # noqa: T201
    if not objects:
        print("check_manifests: there are no objects", file=sys.stderr)  # noqa: T201
    return 1 if found or not objects else 0


if __name__ == "__main__":
    sys.exit(main())
