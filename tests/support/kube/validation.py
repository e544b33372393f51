"""Checks and defaults of objects that clients send."""

import re
import uuid
from functools import cache
from typing import Any

from pydantic import BaseModel, ValidationError

from tests.support.kube.errors import KubeError, Obj, bad_request, invalid
from tests.support.kube.store import RESOURCES, Store

DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
DNS_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
LABEL_KEY = re.compile(r"([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi|e[0-9]+)?")
MAX_ANNOTATION_BYTES = 256 * 1024
_SUFFIXES = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15} | {
    f"{letter}i": 1024.0 ** (power + 1) for power, letter in enumerate("KMGTP")
}
_UNCHECKED = {"events", "scaledobjects", "triggerauthentications"}
"""Resources whose types are not in the client library."""
_TRACK = "batch.kubernetes.io"


def check_new(plural: str, namespace: str, obj: Any) -> Obj:
    """Return the object that a client sent to be created, with its defaults. Raises KubeError (400, 422)."""
    resource = RESOURCES[plural]
    if not isinstance(obj, dict) or not isinstance(obj.get("metadata", {}), dict):
        raise bad_request("the object provided is unrecognized (must be of type object)")
    for field, wanted in (("apiVersion", resource.api_version), ("kind", resource.kind)):
        if obj.get(field, wanted) != wanted:
            raise bad_request(f"the {field} in the data ({obj[field]}) does not match the expected {field} ({wanted})")
    meta = obj.setdefault("metadata", {})
    if resource.namespaced and meta.setdefault("namespace", namespace) != namespace:
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
    if not meta.get("name") and meta.get("generateName"):
        meta["name"] = f"{meta['generateName']}{uuid.uuid4().hex[:5]}"
    for name in ("uid", "creationTimestamp", "generation", "deletionTimestamp"):
        meta.pop(name, None)
    if meta.pop("resourceVersion", None):
        raise KubeError(500, "InternalError", "resourceVersion should not be set on objects to be created")
    decoded(plural, obj)
    causes = [*_meta(meta), *(_job(obj) if plural == "jobs" else _pod(obj) if plural == "pods" else [])]
    if causes:
        raise invalid(resource.kind, resource.group, meta.get("name", ""), causes)
    return obj


@cache
def _model(kind: str) -> type[BaseModel]:
    """Return the model of a kind. The import takes 0.6 s, which each process of a test run would need."""
    from kubernetes import client

    model: type[BaseModel] = getattr(client, f"V1{kind}")
    return model


def decoded(plural: str, obj: Obj) -> None:
    """Check the types of all known fields. Raises KubeError (400), as the decoder of the real server does."""
    resource = RESOURCES[plural]
    if plural in _UNCHECKED:
        return
    try:
        _model(resource.kind).model_validate(obj)
    except ValidationError as error:
        first = error.errors()[0]
        field, kind = ".".join(map(str, first["loc"])), RESOURCES[plural].kind
        raise bad_request(
            f'{kind} in version "v1" cannot be handled as a {kind}: json: cannot unmarshal into field {field}: '
            f"{first['msg']}"
        ) from None


def check_update(plural: str, before: Obj, after: Obj) -> None:
    """Check what clients may not change. Raises KubeError (400, 422)."""
    decoded(plural, after)
    resource, causes = RESOURCES[plural], _meta(after["metadata"])
    old, new = before.get("spec", {}), after.get("spec", {})
    if plural == "jobs":
        fixed = ("template", "selector", "completions", "podFailurePolicy", "backoffLimit")
        causes += [(f"spec.{name}", "field is immutable") for name in fixed if old.get(name) != new.get(name)]
    if plural == "pods" and {**old, "activeDeadlineSeconds": 0} != {**new, "activeDeadlineSeconds": 0}:
        causes.append(("spec", "Forbidden: pod updates may not change fields other than `spec.activeDeadlineSeconds`"))
    if causes:
        raise invalid(resource.kind, resource.group, before["metadata"]["name"], causes)


def complete(store: Store, plural: str, obj: Obj) -> Obj:
    """Add what the server sets: uid, defaults, and the labels by which a Job finds its pods."""
    meta = obj["metadata"]
    meta["uid"] = str(uuid.uuid4())
    if plural == "jobs":
        labels = {f"{_TRACK}/controller-uid": meta["uid"], f"{_TRACK}/job-name": meta["name"]}
        labels |= {"controller-uid": meta["uid"], "job-name": meta["name"]}
        spec = obj["spec"]
        defaults = {"parallelism": 1, "completions": 1, "backoffLimit": 6, "completionMode": "NonIndexed"}
        obj["spec"] = {**defaults, "suspend": False, "podReplacementPolicy": "TerminatingOrFailed", **spec}
        if spec.get("podFailurePolicy"):
            obj["spec"]["podReplacementPolicy"] = "Failed"
        obj["spec"]["selector"] = {"matchLabels": {f"{_TRACK}/controller-uid": meta["uid"]}}
        template = spec["template"].setdefault("metadata", {})
        template["labels"] = {**(template.get("labels") or {}), **labels}
        meta.setdefault("labels", {**template["labels"]})
        obj["status"] = {}
        _complete_pod(spec["template"]["spec"])
    if plural == "pods":
        _complete_pod(obj["spec"])
        meta.setdefault("labels", {})
        obj["status"] = {"phase": "Pending", "qosClass": "BestEffort"}
    if plural == "namespaces":
        obj["status"] = {"phase": "Active"}
        meta.setdefault("labels", {})["kubernetes.io/metadata.name"] = meta["name"]
    return obj


def _complete_pod(spec: Obj) -> None:
    defaults = {
        "restartPolicy": "Always",
        "dnsPolicy": "ClusterFirst",
        "schedulerName": "default-scheduler",
        "terminationGracePeriodSeconds": 30,
        "securityContext": {},
    }
    for name, value in defaults.items():
        spec.setdefault(name, value)
    for container in spec["containers"]:
        container.setdefault("terminationMessagePath", "/dev/termination-log")
        container.setdefault("terminationMessagePolicy", "File")


def _meta(meta: Obj) -> list[tuple[str, str]]:
    name = meta.get("name")
    if not name:
        return [("metadata.name", "Required value: name or generateName is required")]
    causes = []
    if not DNS_NAME.fullmatch(name):
        causes.append(("metadata.name", f'Invalid value: "{name}": a lowercase RFC 1123 subdomain is required'))
    for key, value in (meta.get("labels") or {}).items():
        if not LABEL_KEY.fullmatch(key) or not isinstance(value, str) or not LABEL_VALUE.fullmatch(value):
            causes.append(("metadata.labels", f'Invalid value: "{key}={value}": a valid label is required'))
    notes = meta.get("annotations") or {}
    causes += [("metadata.annotations", f'Invalid value: "{key}"') for key in notes if not LABEL_KEY.fullmatch(key)]
    if sum(len(key.encode()) + len(str(value).encode()) for key, value in notes.items()) > MAX_ANNOTATION_BYTES:
        causes.append(("metadata.annotations", "Too long: may not be more than 262144 bytes"))
    return causes


def _job(job: Obj) -> list[tuple[str, str]]:
    spec = job.get("spec") or {}
    pod = (spec.get("template") or {}).get("spec")
    if len(job["metadata"].get("name", "")) > 63:
        return [("metadata.name", "Invalid value: must be no more than 63 characters")]
    if not pod:
        return [("spec.template.spec", "Required value")]
    causes = [
        (f"spec.{name}", "Invalid value: must be greater than or equal to 0")
        for name in ("activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished", "parallelism", "completions")
        if (spec.get(name) or 0) < 0
    ]
    if pod.get("restartPolicy") not in {"Never", "OnFailure"}:
        causes.append(("spec.template.spec.restartPolicy", 'Required value: valid values: "OnFailure", "Never"'))
    if spec.get("podFailurePolicy"):
        if pod.get("restartPolicy") != "Never":
            causes.append(("spec.template.spec.restartPolicy", 'Invalid value: only "Never" with podFailurePolicy'))
        if spec.get("podReplacementPolicy", "Failed") != "Failed":
            causes.append(("spec.podReplacementPolicy", 'Unsupported value: supported values: "Failed"'))
    template = spec["template"].get("metadata") or {}
    causes += _meta({**template, "name": "pod"})
    return causes + _pod({"spec": pod}, "spec.template.spec")


def _pod(pod: Obj, at: str = "spec") -> list[tuple[str, str]]:
    spec = pod.get("spec") or {}
    causes = [] if spec.get("containers") else [(f"{at}.containers", "Required value")]
    volumes = {volume.get("name") for volume in spec.get("volumes") or []}
    for volume in spec.get("volumes") or []:
        limit = (volume.get("emptyDir") or {}).get("sizeLimit")
        if limit is not None and not QUANTITY.fullmatch(str(limit)):
            causes.append((f"{at}.volumes", f'Invalid value: "{limit}": quantities must match the regular expression'))
    for index, container in enumerate(spec.get("containers") or []):
        causes += _container(container, volumes, f"{at}.containers[{index}]")
    return causes


def _container(container: Obj, volumes: set[str], at: str) -> list[tuple[str, str]]:
    causes = []
    if not DNS_LABEL.fullmatch(container.get("name", "")):
        causes.append((f"{at}.name", "Required value, a lowercase RFC 1123 label"))
    if not container.get("image"):
        causes.append((f"{at}.image", "Required value"))
    mounted = [mount.get("name") for mount in container.get("volumeMounts") or []]
    causes += [(f"{at}.volumeMounts", f'Not found: "{name}"') for name in mounted if name not in volumes]
    resources = container.get("resources") or {}
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    for name, value in [*limits.items(), *requests.items()]:
        if not QUANTITY.fullmatch(str(value)):
            causes.append((f"{at}.resources", f'Invalid value: "{value}": not a quantity of {name}'))
            return causes
    for name, value in requests.items():
        if name in limits and _number(value) > _number(limits[name]):
            causes.append((f"{at}.resources.requests", f'Invalid value: "{value}": more than the {name} limit'))
    return causes


def _number(quantity: Any) -> float:
    found = QUANTITY.fullmatch(str(quantity))
    assert found
    suffix = found[2] or ""
    return float(found[1]) * (10.0 ** int(suffix[1:]) if suffix.startswith("e") else _SUFFIXES[suffix])
