"""Label and field selectors."""

import re
from collections.abc import Callable
from typing import TypeAlias

from tests.support.kube.errors import KubeError, Obj, bad_request

Selector: TypeAlias = Callable[[Obj], bool]

_SET = re.compile(r"(?P<key>[^\s!=,()]+)\s+(?P<verb>in|notin)\s*\((?P<values>[^()]*)\)")
_FIELDS = {
    "pods": {"spec.nodeName", "spec.restartPolicy", "status.phase", "status.podIP"},
    "jobs": {"status.successful"},
    "events": {"involvedObject.kind", "involvedObject.name", "involvedObject.uid", "reason", "type"},
}
"""Fields that may be selected, beside the name and the namespace. The real server refuses all others too."""


def label_selector(text: str) -> Selector:
    """Return whether an object has the labels. Raises KubeError (400) for a text that is no selector."""
    wanted = [_requirement(part.strip()) for part in _split(text)]
    return lambda obj: all(matches(obj["metadata"].get("labels") or {}) for matches in wanted)


def field_selector(text: str, plural: str) -> Selector:
    """Return whether an object has the values in its fields. Raises KubeError (400) for other fields."""
    wanted = []
    for part in filter(None, text.split(",")):
        found = re.fullmatch(r"([\w.]+)(==|!=|=)(.*)", part.strip())
        if found is None:
            raise bad_request(f"invalid field selector: '{part}'")
        field, operator, value = found.groups()
        if field not in {"metadata.name", "metadata.namespace"} | _FIELDS.get(plural, set()):
            raise bad_request(f'field label not supported: "{field}"')
        wanted.append((field, operator, value))
    return lambda obj: all((_value(obj, field) == value) is (operator != "!=") for field, operator, value in wanted)


def _value(obj: Obj, path: str) -> str:
    found: object = obj
    for name in path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return "" if found is None else str(found)


def _split(text: str) -> list[str]:
    """Split at commas outside parentheses."""
    return [part for part in re.split(r",(?![^(]*\))", text) if part.strip()]


def _requirement(text: str) -> Callable[[dict[str, str]], bool]:
    if found := _SET.fullmatch(text):
        key, values = found["key"], {value.strip() for value in found["values"].split(",")}
        if found["verb"] == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    if found := re.fullmatch(r"([^\s!=,()]+)\s*(==|!=|=)\s*([\w.-]*)", text):
        key, operator, value = found.groups()
        if operator == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if found := re.fullmatch(r"(!?)([^\s!=,()]+)", text):
        absent, key = found.groups()
        return lambda labels: (key in labels) is not bool(absent)
    raise _bad_label(text)


def _bad_label(text: str) -> KubeError:
    return bad_request(f"unable to parse requirement: found '{text}', expected: in, notin, =, ==, !=, !key or key")
