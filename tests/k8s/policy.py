"""Evaluation of the admission policy by a CEL interpreter from PyPI, not the one in the API server of Kubernetes.

The expressions use only the core of the language, without the functions that Kubernetes adds to it.
"""

from functools import cache
from typing import Any

import cel

from scripts.check_manifests import Object
from tests.k8s.rendering import source

POLICY = "base/admission.yaml"


class Policy:
    """Policy for the namespace of tools, with the repositories that images may come from."""

    def __init__(self, *repositories: str) -> None:
        (policy,) = (each for each in source(POLICY) if each["kind"] == "ValidatingAdmissionPolicy")
        self._spec: Object = policy["spec"]
        self._variables = {each["name"]: each["expression"] for each in self._spec["variables"]}
        self._variables["repositories"] = str(list(repositories))

    @property
    def messages(self) -> list[str]:
        """Messages of all rules."""
        return [rule["message"] for rule in self._spec["validations"]]

    def is_asked(self, each: Object, before: Object | None = None) -> bool:
        """Return whether the policy is asked when an object is created, or replaces the one before."""
        context = cel.Context()
        context.add_variable("request", {"operation": "UPDATE" if before else "CREATE"})
        context.add_variable("object", each)
        context.add_variable("oldObject", before)
        return all(_holds(condition["expression"], context) for condition in self._spec["matchConditions"])

    def refusals(self, each: Object) -> list[str]:
        """Return the messages of the rules that an object breaks. An expression with an error refuses the object."""
        context = cel.Context()
        context.add_variable("object", each)
        variables: dict[str, Any] = {}
        for name, expression in self._variables.items():
            context.add_variable("variables", variables)
            try:
                variables[name] = _compiled(expression).execute(context)
            except (KeyError, TypeError, ValueError, RuntimeError, IndexError):
                # Kubernetes evaluates a variable where it is used: the rule that uses it fails then.
                continue
        context.add_variable("variables", variables)
        return [rule["message"] for rule in self._spec["validations"] if not _holds(rule["expression"], context)]


@cache
def _compiled(expression: str) -> "cel.Program":
    return cel.compile(expression)


def _holds(expression: str, context: "cel.Context") -> bool:
    try:
        return _compiled(expression).execute(context) is True
    except (KeyError, TypeError, ValueError, RuntimeError, IndexError):
        return False
