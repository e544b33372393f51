"""Discovery of the API as kubectl and helm ask for it: groups, resources, and which requests check fields."""

from typing import Any

from tests.support.kube.store import RESOURCES, Resource

VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
SHORT_NAMES = {"configmaps": ["cm"], "deployments": ["deploy"], "replicasets": ["rs"], "statefulsets": ["sts"]}
REVIEWS = Resource(
    "selfsubjectaccessreviews", "SelfSubjectAccessReview", "authorization.k8s.io", "v1", namespaced=False
)


def document(path: str) -> Any:
    """Return the document at a path of discovery; None if the path is none."""
    resources = [*RESOURCES.values(), REVIEWS]
    versions = {resource.api_version for resource in resources}
    match path.strip("/").split("/"):
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"]}
        case ["apis"]:
            groups = [_group(*version.split("/")) for version in sorted(versions) if "/" in version]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
        case ["api", _] | ["apis", _, _] if path.strip("/").split("/", 1)[1] in versions:
            name = path.strip("/").split("/", 1)[1]
            listed = [_resource(resource) for resource in resources if resource.api_version == name]
            return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": listed}
        case ["openapi", "v3"]:
            return {
                "paths": {_api(version): {"serverRelativeURL": f"/openapi/v3/{_api(version)}"} for version in versions}
            }
        case ["openapi", "v3", *rest]:
            return _openapi("/".join(rest), resources)
    return None


def _api(version: str) -> str:
    return f"apis/{version}" if "/" in version else f"api/{version}"


def _group(name: str, version: str) -> Any:
    named = {"groupVersion": f"{name}/{version}", "version": version}
    return {"name": name, "versions": [named], "preferredVersion": named}


def _resource(resource: Resource) -> Any:
    return {
        "name": resource.plural,
        "singularName": resource.kind.lower(),
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": ["create"] if resource is REVIEWS else VERBS,
        "shortNames": SHORT_NAMES.get(resource.plural, []),
    }


def _openapi(api: str, resources: list[Resource]) -> Any:
    """Return the part of the document from which clients learn that the server checks the fields of objects."""
    paths = {
        f"/{api}/{resource.plural}/{{name}}": {
            "patch": {
                "parameters": [{"name": "fieldValidation", "in": "query"}, {"name": "dryRun", "in": "query"}],
                "x-kubernetes-group-version-kind": {
                    "group": resource.group,
                    "version": resource.version,
                    "kind": resource.kind,
                },
            }
        }
        for resource in resources
        if _api(resource.api_version) == api
    }
    return (
        {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1.36.0"}, "paths": paths} if paths else None
    )
