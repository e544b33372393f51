"""Users by their tokens, and rules for what they may do (RBAC)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.support.kube.errors import KubeError, forbidden


@dataclass(frozen=True)
class Rule:
    """Verbs on resources of a namespace. `*` allows all; a resource is named as `pods` or `pods/log`."""

    verbs: Sequence[str]
    resources: Sequence[str]
    namespace: str = "*"

    def allows(self, verb: str, resource: str, namespace: str) -> bool:
        """Return whether the rule allows this."""
        return (
            ("*" in self.verbs or verb in self.verbs)
            and ("*" in self.resources or resource in self.resources)
            and self.namespace in {"*", namespace}
        )


@dataclass
class Access:
    """Users and their rules. Without any user, everybody may do everything."""

    users: dict[str, tuple[str, list[Rule]]] = field(default_factory=dict)

    def add(self, token: str, name: str, *rules: Rule) -> None:
        """Add a user."""
        self.users[token] = (name, list(rules))

    def check(self, token: str, verb: str, resource: tuple[str, str], namespace: str, name: str) -> None:
        """Check a request; `resource` has the plural and the group. Raises KubeError (401, 403)."""
        plural, group = resource
        user = self._user(token)
        if user is None or any(rule.allows(verb, plural, namespace) for rule in user[1]):
            return
        where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
        why = f'User "{user[0]}" cannot {verb} resource "{plural}" in API group "{group}" {where}'
        raise forbidden(plural, group, name, why)

    def allows(self, token: str, verb: str, resource: str, namespace: str) -> bool:
        """Return whether a user may do this. Raises KubeError (401)."""
        user = self._user(token)
        return user is None or any(rule.allows(verb, resource, namespace) for rule in user[1])

    def _user(self, token: str) -> tuple[str, list[Rule]] | None:
        """Return the user of a token, None if all is allowed."""
        if not self.users:
            return None
        if token not in self.users:
            raise KubeError(401, "Unauthorized", "Unauthorized")
        return self.users[token]
