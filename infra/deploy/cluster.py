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
        found = json.loads(self.programs.read(*self.kubectl("version", "--output=json", REQUEST_TIMEOUT)))
        return str(found.get("serverVersion", {}).get("gitVersion", ""))

    def find(self, kind: str, name: str) -> Object | None:
        """Return an object, None if it does not exist. Raises ProgramFailed."""
        text = self.programs.read(
            *self.within("get", kind, name, "--output=json", "--ignore-not-found", REQUEST_TIMEOUT)
        )
        return json.loads(text) if text.strip() else None

    def all(self, kinds: str, selector: str = "") -> list[Object]:
        """Return objects of kinds such as `deployments,pods`. Raises ProgramFailed."""
        chosen = [f"--selector={selector}"] if selector else []
        text = self.programs.read(*self.within("get", kinds, *chosen, "--output=json", REQUEST_TIMEOUT))
        items: list[Object] = json.loads(text)["items"]
        return items

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
        while at < len(text.rstrip()):
            answer, at = decoder.raw_decode(text, at + len(text[at:]) - len(text[at:].lstrip()))
            answers += answer["items"] if answer["kind"] == "List" else [answer]
        return [
            right for right, answer in zip(wanted, answers, strict=True) if not answer.get("status", {}).get("allowed")
        ]

    def write(self, obj: Object) -> Object:
        """Make an object, or replace the version of it that `obj` names; return it. Raises VersionConflict."""
        verb = "replace" if "resourceVersion" in obj["metadata"] else "create"
        command = self.within(verb, "--filename=-", "--validate=false", "--output=json", REQUEST_TIMEOUT)
        try:
            written: Object = json.loads(self.programs.read(*command, stdin=json.dumps(obj)))
        except ProgramFailed as exc:
            if any(word in str(exc) for word in ("(Conflict)", "(AlreadyExists)", "(NotFound)")):
                raise VersionConflict(str(exc)) from None
            raise
        return written


def _list(items: Sequence[Object]) -> Object:
    return {"apiVersion": "v1", "kind": "List", "items": list(items)}
