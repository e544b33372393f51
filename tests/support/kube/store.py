"""Objects of the cluster with their history. Everything here runs in the event loop of the server.

Objects that were returned are never changed later: an update stores a copy.
"""

import asyncio
import copy
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeAlias

from tests.support.kube.errors import Obj, already_exists, not_found

Key: TypeAlias = tuple[str, str]
"""Namespace and name."""


KEPT = 2000
"""Fewest changes that are kept for watches and old versions."""


@dataclass(frozen=True)
class Resource:
    """Kind of object. `group` is empty for the core group."""

    plural: str
    kind: str
    group: str = ""
    version: str = "v1"
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """Group and version as objects name them."""
        return f"{self.group}/{self.version}" if self.group else self.version


RESOURCES = {
    resource.plural: resource
    for resource in (
        Resource("namespaces", "Namespace", namespaced=False),
        Resource("pods", "Pod"),
        Resource("events", "Event"),
        Resource("configmaps", "ConfigMap"),
        Resource("secrets", "Secret"),
        Resource("serviceaccounts", "ServiceAccount"),
        Resource("services", "Service"),
        Resource("resourcequotas", "ResourceQuota"),
        Resource("limitranges", "LimitRange"),
        Resource("jobs", "Job", "batch"),
        Resource("cronjobs", "CronJob", "batch"),
        Resource("deployments", "Deployment", "apps"),
        Resource("replicasets", "ReplicaSet", "apps"),
        Resource("statefulsets", "StatefulSet", "apps"),
        Resource("leases", "Lease", "coordination.k8s.io"),
        Resource("poddisruptionbudgets", "PodDisruptionBudget", "policy"),
        Resource("networkpolicies", "NetworkPolicy", "networking.k8s.io"),
        Resource("roles", "Role", "rbac.authorization.k8s.io"),
        Resource("rolebindings", "RoleBinding", "rbac.authorization.k8s.io"),
        Resource("priorityclasses", "PriorityClass", "scheduling.k8s.io", namespaced=False),
        Resource(
            "validatingadmissionpolicies", "ValidatingAdmissionPolicy", "admissionregistration.k8s.io", namespaced=False
        ),
        Resource(
            "validatingadmissionpolicybindings",
            "ValidatingAdmissionPolicyBinding",
            "admissionregistration.k8s.io",
            namespaced=False,
        ),
        Resource("scaledobjects", "ScaledObject", "keda.sh", "v1alpha1"),
        Resource("triggerauthentications", "TriggerAuthentication", "keda.sh", "v1alpha1"),
    )
}


@dataclass(frozen=True)
class Change:
    """Change of an object. `before` is None for a new object; `after` of a removed one is its last state."""

    version: int
    type: Literal["ADDED", "MODIFIED", "DELETED"]
    plural: str
    before: Obj | None
    after: Obj
    at_s: float


class Store:
    """Objects of a cluster. `now` follows the clock of the host, plus what a test has added with `advance`."""

    def __init__(self) -> None:
        self.version = 1000
        self.oldest = 1000
        self.history: list[Change] = []
        self._objects: dict[str, dict[Key, Obj]] = {plural: {} for plural in RESOURCES}
        self._ahead_s = 0.0
        self._waiting: set[asyncio.Event] = set()

    def now(self) -> float:
        """Return the time of the cluster in seconds since the epoch."""
        return time.time() + self._ahead_s

    def timestamp(self) -> str:
        """Return the time of the cluster as objects hold it: to the second."""
        return datetime.fromtimestamp(self.now(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def advance(self, seconds: float) -> None:
        """Move the clock of the cluster; deadlines that have passed take effect immediately."""
        self._ahead_s += seconds
        self.wake()

    def wake(self) -> None:
        """Let all waits check their conditions again."""
        for event in self._waiting:
            event.set()

    async def wait(self, until: Callable[[], object], deadline_s: float | None = None) -> bool:
        """Wait for a condition that depends on objects; return False at a deadline of the cluster's clock."""
        event = asyncio.Event()
        self._waiting.add(event)
        try:
            while not until():
                left_s = None if deadline_s is None else deadline_s - self.now()
                if left_s is not None and left_s <= 0:
                    return False
                try:
                    async with asyncio.timeout(left_s):
                        await event.wait()
                except TimeoutError:
                    continue
                event.clear()
            return True
        finally:
            self._waiting.discard(event)

    def find(self, plural: str, namespace: str, name: str) -> Obj | None:
        """Return an object, None if it does not exist."""
        return self._objects[plural].get((namespace, name))

    def get(self, plural: str, namespace: str, name: str) -> Obj:
        """Return an object. Raises KubeError (404)."""
        found = self.find(plural, namespace, name)
        if found is None:
            raise not_found(plural, name, RESOURCES[plural].group)
        return found

    def by_uid(self, plural: str, namespace: str, uid: str) -> Obj | None:
        """Return the object with this uid, None if it does not exist."""
        return next((obj for obj in self.all(plural, namespace) if obj["metadata"]["uid"] == uid), None)

    def all(self, plural: str, namespace: str = "") -> list[Obj]:
        """Return the objects of one namespace or of all, ordered by their keys."""
        objects = self._objects[plural]
        return [objects[key] for key in sorted(objects) if not namespace or key[0] == namespace]

    def at(self, plural: str, version: int) -> dict[Key, Obj]:
        """Return the objects as they were at a version that is still kept."""
        objects = dict(self._objects[plural])
        for change in reversed(self.history):
            if change.version <= version:
                break
            if change.plural != plural:
                continue
            if change.before is None:
                objects.pop(key_of(change.after), None)
            else:
                objects[key_of(change.after)] = change.before
        return objects

    def create(self, plural: str, obj: Obj) -> Obj:
        """Store a new object with uid and version. Raises KubeError (409)."""
        resource, key = RESOURCES[plural], key_of(obj)
        if key in self._objects[plural]:
            raise already_exists(plural, key[1], resource.group)
        made = copy.deepcopy(obj)
        made["apiVersion"], made["kind"] = resource.api_version, resource.kind
        made["metadata"].setdefault("uid", str(uuid.uuid4()))
        made["metadata"] |= {"creationTimestamp": self.timestamp(), "generation": 1}
        return self._record("ADDED", plural, None, made)

    def update(self, plural: str, key: Key, change: Callable[[Obj], object]) -> Obj:
        """Store what `change` makes of a copy. Nothing is recorded if it changes nothing. Raises KubeError (404)."""
        before = self.get(plural, *key)
        after = copy.deepcopy(before)
        change(after)
        if after == before:
            return before
        if after.get("spec") != before.get("spec"):
            after["metadata"]["generation"] += 1
        stored = self._record("MODIFIED", plural, before, after)
        meta = stored["metadata"]
        held = meta.get("finalizers") or meta.get("deletionGracePeriodSeconds")
        # The kubelet sets the grace period to 0 once the containers of a pod have ended.
        return stored if held or not meta.get("deletionTimestamp") else self.remove(plural, key)

    def remove(self, plural: str, key: Key) -> Obj:
        """Remove an object; return its last state. Raises KubeError (404)."""
        before = self.get(plural, *key)
        return self._record("DELETED", plural, before, copy.deepcopy(before))

    def compact(self) -> None:
        """Forget all versions before the current one."""
        self.oldest = self.version
        self.history.clear()
        self.wake()

    def _record(
        self, kind: Literal["ADDED", "MODIFIED", "DELETED"], plural: str, before: Obj | None, after: Obj
    ) -> Obj:
        self.version += 1
        after["metadata"]["resourceVersion"] = str(self.version)
        if kind == "DELETED":
            del self._objects[plural][key_of(after)]
        else:
            self._objects[plural][key_of(after)] = after
        self.history.append(Change(self.version, kind, plural, before, after, self.now()))
        if len(self.history) > 2 * KEPT:
            self.oldest = self.history[KEPT - 1].version
            del self.history[:KEPT]
        self.wake()
        return after


def key_of(obj: Obj) -> Key:
    """Return the key of an object."""
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]
