"""Patches as the API server applies them: JSON merge patch, JSON patch, strategic merge patch."""

import copy
from typing import Any

from tests.support.kube.errors import KubeError, bad_request, invalid

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON = "application/json-patch+json"
TYPES = (MERGE, STRATEGIC, JSON)
MERGE_KEYS = {
    "containers": ("name",),
    "initContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "ports": ("containerPort", "port"),
    "imagePullSecrets": ("name",),
    "topologySpreadConstraints": ("topologyKey",),
    "conditions": ("type",),
    "ownerReferences": ("uid",),
}
"""Lists of objects that a strategic merge patch merges, with the field by which it finds an element."""


def patched(before: Any, patch: Any, content_type: str) -> Any:
    """Return an object with a patch applied. Raises KubeError (400, 415, 422)."""
    kind = content_type.split(";", maxsplit=1)[0]
    if kind not in TYPES:
        text = f"the body of the request was in an unknown format - accepted media types include: {', '.join(TYPES)}"
        raise KubeError(415, "UnsupportedMediaType", text)
    if kind == JSON and isinstance(patch, list):
        return _json_patched(before, patch)
    if kind == JSON or not isinstance(patch, dict):
        raise bad_request("json: cannot unmarshal into Go value of type map[string]interface {}")
    return merged(before, patch) if kind == MERGE else strategic(before, patch)


def merged(before: Any, patch: Any) -> Any:
    """Return a value with a merge patch applied (RFC 7396)."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = copy.deepcopy(before) if isinstance(before, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def strategic(before: Any, patch: Any) -> Any:
    """Return a value with a strategic merge patch applied: some lists are merged by a field of their elements."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    if patch.get("$patch") == "replace":
        return {name: copy.deepcopy(value) for name, value in patch.items() if name != "$patch"}
    result = copy.deepcopy(before) if isinstance(before, dict) else {}
    if (kept := patch.get("$retainKeys")) is not None:
        result = {name: value for name, value in result.items() if name in kept}
    for name, value in patch.items():
        if name.startswith("$"):
            continue
        if value is None:
            result.pop(name, None)
        elif key := _merge_key(name, value, result.get(name)):
            result[name] = _merged_list(result.get(name) or [], value, key)
        else:
            result[name] = strategic(result.get(name), value)
    for name, order in patch.items():
        listed = name.removeprefix("$setElementOrder/")
        if listed != name and isinstance(result.get(listed), list):
            result[listed] = _ordered(listed, result[listed], order)
    return result


def _merge_key(name: str, value: Any, before: Any) -> str | None:
    if not isinstance(value, list):
        return None
    elements = [each for each in [*value, *(before or [])] if isinstance(each, dict)]
    keys = MERGE_KEYS.get(name, ())
    return next((key for key in keys if elements and all(key in each for each in elements)), None)


def _merged_list(before: list[Any], patch: list[Any], key: str) -> list[Any]:
    result = copy.deepcopy(before)
    for each in patch:
        at = next((index for index, found in enumerate(result) if found.get(key) == each[key]), None)
        if each.get("$patch") == "delete":
            if at is not None:
                del result[at]
        elif at is None:
            result.append(strategic(None, each))
        else:
            result[at] = strategic(result[at], each)
    return result


def _ordered(name: str, elements: list[Any], order: list[Any]) -> list[Any]:
    keys = MERGE_KEYS.get(name, ())
    positions = {
        next((each[key] for key in keys if key in each), None) if isinstance(each, dict) else each: index
        for index, each in enumerate(order)
    }
    return sorted(
        elements,
        key=lambda each: positions.get(
            next((each[key] for key in keys if key in each), None) if isinstance(each, dict) else each, len(order)
        ),
    )


def _json_patched(before: Any, operations: list[Any]) -> Any:
    result = copy.deepcopy(before)
    for each in operations:
        *path, last = [part.replace("~1", "/").replace("~0", "~") for part in each["path"].split("/")[1:]]
        target = result
        for part in path:
            target = target[int(part) if isinstance(target, list) else part]
        if each["op"] == "test" and target.get(last) != each["value"]:
            raise invalid("Patch", "", "", [(each["path"], "the value to test differs")])
        if each["op"] in {"add", "replace"}:
            if each["op"] == "replace" and last not in target:
                raise invalid("Patch", "", "", [(each["path"], "replace operation does not apply: missing path")])
            target[last] = copy.deepcopy(each["value"])
        if each["op"] == "remove":
            target.pop(last)
    return result
