"""Requests of the Kubernetes API: what a path, a method and a query ask for."""

import re
from dataclasses import dataclass

from starlette.requests import Request as HttpRequest

from tests.support.kube.errors import KubeError, bad_request
from tests.support.kube.selectors import Selector, field_selector, label_selector
from tests.support.kube.store import RESOURCES, Key, Resource

_PATH = re.compile(
    r"/(?:api/(?P<core>v1)|apis/(?P<group>[a-z0-9.-]+)/(?P<version>v1|v1alpha1))"
    r"(?:/namespaces/(?P<namespace>[^/]+)(?=/))?/(?P<plural>[a-z]+)(?:/(?P<name>[^/]+)(?:/(?P<sub>[a-z]+))?)?"
)
_SUBRESOURCES = {
    "pods": {"log", "status", "eviction"},
    "jobs": {"status"},
    "deployments": {"status"},
}


@dataclass(frozen=True)
class KubeRequest:
    """Request for one object or a collection. `namespace` is empty for all namespaces, `name` for a collection."""

    verb: str
    resource: Resource
    namespace: str
    name: str
    sub: str
    query: dict[str, str]

    @property
    def key(self) -> Key:
        """Key of the object."""
        return self.namespace, self.name

    @property
    def permission(self) -> str:
        """Resource as rules of access name it."""
        return f"{self.resource.plural}/{self.sub}" if self.sub else self.resource.plural

    def flag(self, name: str) -> bool:
        """Return whether the query sets a flag."""
        return self.query.get(name, "").lower() in {"true", "1"}

    def number(self, name: str) -> int | None:
        """Return a number of the query, None if it has none. Raises KubeError (400)."""
        text = self.query.get(name, "")
        if text and not text.isdigit():
            raise bad_request(f'strconv.ParseInt: parsing "{text}" as {name}: invalid syntax')
        return int(text) if text else None

    def selector(self) -> Selector:
        """Return the selector of labels and fields. Raises KubeError (400)."""
        labels = label_selector(self.query.get("labelSelector", ""))
        fields = field_selector(self.query.get("fieldSelector", ""), self.resource.plural)
        return lambda obj: labels(obj) and fields(obj)


def _group_version(found: re.Match[str]) -> str:
    return found["core"] or f"{found['group']}/{found['version']}"


def parse(http: HttpRequest) -> KubeRequest:
    """Read path, method and query. Raises KubeError (404, 405)."""
    path, query = http.url.path, dict(http.query_params)
    found = _PATH.fullmatch(path)
    resource = RESOURCES.get(found["plural"]) if found else None
    if not found or resource is None or resource.api_version != _group_version(found):
        raise KubeError(404, "NotFound", "the server could not find the requested resource")
    name, sub = found["name"] or "", found["sub"] or ""
    if sub and sub not in _SUBRESOURCES.get(resource.plural, set()):
        raise KubeError(404, "NotFound", "the server could not find the requested resource")
    watches = query.get("watch", "").lower() in {"true", "1"}
    of_one = {"GET": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete", "POST": "create" if sub else ""}
    of_many = {"GET": "watch" if watches else "list", "POST": "create", "DELETE": "deletecollection"}
    verb = (of_one if name else of_many).get(http.method, "")
    if not verb or (verb == "create" and resource.namespaced and not found["namespace"]):
        raise KubeError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    return KubeRequest(verb, resource, found["namespace"] or "", name, sub, query)
