"""The cluster as kubectl shows it: objects, rights, names of the keys of Secrets, writes that expect a version."""

import json
from collections.abc import Sequence
from typing import Any, TypeAlias

from infra.deploy.errors import DeployFailed
from infra.deploy.programs import ProgramFailed, Programs

Object: TypeAlias = dict[str, Any]
Right: TypeAlias = tuple[str, str, str, str]
"""Verb, group, resource, namespace (empty for all of the cluster)."""

REQUEST_TIMEOUT = "--request-timeout=30s"
PLACEHOLDER_BASE64 = "Q0hBTkdFLU1F"
"""CHANGE-ME, the text of k8s/examples/secrets.yaml. Longer values with it are not recognised."""
_KEYS = (
    "{{range .items}}{{$name := .metadata.name}}{{range $key, $value := .data}}{{$name}} {{$key}} "
    f'{{{{if not $value}}}}empty{{{{else if eq $value "{PLACEHOLDER_BASE64}"}}}}placeholder{{{{else}}}}set{{{{end}}}}'
    '{{"\\n"}}{{end}}{{end}}'
)
"""Template for kubectl that prints the names of Secrets and of their keys: no value leaves kubectl."""


class VersionConflict(DeployFailed):
    """Conflict: another process has changed or made the object meanwhile."""


class KubectlCluster:
    """One namespace of a cluster, through kubectl."""

    def __init__(self, programs: Programs, context: str, namespace: str) -> None:
        self.programs = programs
        self.context = context
        self.namespace = namespace

    def kubectl(self, *args: str) -> tuple[str, ...]:
        """Return a command line of kubectl for this cluster."""
        return ("kubectl", f"--context={self.context}", *args)

    def within(self, *args: str) -> tuple[str, ...]:
        """Return a command line of kubectl for this namespace."""
        return self.kubectl(f"--namespace={self.namespace}", *args)

    def version(self) -> str:
        """Return the version of the API server. Raises ProgramFailed."""
        found = _decoded(self.programs.read(*self.kubectl("version", "--output=json", REQUEST_TIMEOUT)))
        server = found.get("serverVersion")
        return str(server.get("gitVersion", "")) if isinstance(server, dict) else ""

    def find(self, kind: str, name: str) -> Object | None:
        """Return an object, None if it does not exist. Raises ProgramFailed."""
        text = self.programs.read(
            *self.within("get", kind, name, "--output=json", "--ignore-not-found", REQUEST_TIMEOUT)
        )
        return _object(_decoded(text)) if text.strip() else None

    def all(self, kinds: str, selector: str = "") -> list[Object]:
        """Return objects of kinds such as `deployments,pods`. Raises ProgramFailed."""
        chosen = [f"--selector={selector}"] if selector else []
        text = self.programs.read(*self.within("get", kinds, *chosen, "--output=json", REQUEST_TIMEOUT))
        items = _decoded(text).get("items")
        if not isinstance(items, list):
            raise _not_understood(text)
        return [_object(each) for each in items]

    def names(self, kind: str) -> frozenset[str]:
        """Return the names of all objects of a kind, whose content is not read. Raises ProgramFailed."""
        text = self.programs.read(*self.within("get", kind, "--output=name", REQUEST_TIMEOUT))
        return frozenset(line.partition("/")[2] for line in text.split())

    def secret_keys(self) -> dict[str, dict[str, str]]:
        """Return the keys of all Secrets by their names, each with `set`, `empty` or `placeholder`."""
        text = self.programs.read(*self.within("get", "secrets", f"--output=go-template={_KEYS}", REQUEST_TIMEOUT))
        found: dict[str, dict[str, str]] = {}
        for name, key, state in (line.split(" ") for line in text.splitlines() if line.count(" ") == 2):
            found.setdefault(name, {})[key] = state
        return found

    def missing_rights(self, wanted: Sequence[Right]) -> list[Right]:
        """Return the rights that the user of the context does not have. Raises ProgramFailed.

        Asks what `kubectl auth can-i` asks, for all rights in one call of kubectl.
        """
        reviews = [
            {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": {
                    "resourceAttributes": dict(zip(("verb", "group", "resource", "namespace"), right, strict=True))
                },
            }
            for right in wanted
        ]
        command = self.kubectl("create", "--filename=-", "--validate=false", "--output=json", REQUEST_TIMEOUT)
        text = self.programs.read(*command, stdin=json.dumps(_list(reviews)))
        answers: list[Object] = []
        decoder, at = json.JSONDecoder(), 0
        try:
            while at < len(text.rstrip()):
                answer, at = decoder.raw_decode(text, at + len(text[at:]) - len(text[at:].lstrip()))
                answers += answer["items"] if answer["kind"] == "List" else [answer]
            allowed = [answer["status"]["allowed"] for answer in answers]
            return [right for right, is_allowed in zip(wanted, allowed, strict=True) if not is_allowed]
        except (ValueError, LookupError, TypeError):
            raise _not_understood(text) from None

    def write(self, obj: Object) -> Object:
        """Make an object, or replace the version of it that `obj` names; return it. Raises VersionConflict."""
        verb = "replace" if "resourceVersion" in obj["metadata"] else "create"
        command = self.within(verb, "--filename=-", "--validate=false", "--output=json", REQUEST_TIMEOUT)
        try:
            return _object(_decoded(self.programs.read(*command, stdin=json.dumps(obj))))
        except ProgramFailed as exc:
            if any(word in str(exc) for word in ("(Conflict)", "(AlreadyExists)", "(NotFound)")):
                raise VersionConflict(str(exc)) from None
            raise


def _decoded(text: str) -> Object:
    """Return the JSON object of an answer. Raises ProgramFailed for anything else, such as the page of a proxy."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise _not_understood(text) from None
    if not isinstance(found, dict):
        raise _not_understood(text)
    return found


def _object(found: Any) -> Object:
    """Return an object of Kubernetes. Raises ProgramFailed."""
    if not isinstance(found, dict) or not isinstance(found.get("metadata"), dict) or "kind" not in found:
        raise _not_understood(json.dumps(found))
    return found


def _not_understood(text: str) -> ProgramFailed:
    return ProgramFailed(
        f"kubectl gave an answer that is not one of Kubernetes: {' '.join(text.split())[:100] or 'none'}"
    )


def _list(items: Sequence[Object]) -> Object:
    return {"apiVersion": "v1", "kind": "List", "items": list(items)}
