"""Objects of the Kubernetes API, as far as this executor reads them. Unknown fields are ignored."""

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import field

CONTAINER = "tool"
"""Name of the container with the runner."""
Item = TypeVar("Item")


class KubeView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of all views. The API leaves empty fields out, or writes them as null."""


class OwnerView(KubeView, frozen=True, kw_only=True):
    """Owner of an object."""

    kind: str
    uid: str


class MetaView(KubeView, frozen=True, kw_only=True):
    """Metadata of an object, or of a list."""

    name: str = ""
    uid: str = ""
    labels: Mapping[str, str] | None = None
    annotations: Mapping[str, str] | None = None
    owner_references: list[OwnerView] | None = None
    deletion_timestamp: str | None = None
    resource_version: str = ""
    continue_: str | None = field(default=None, name="continue")


class ConditionView(KubeView, frozen=True, kw_only=True):
    """Condition of a pod or a Job."""

    type: str
    status: str
    reason: str | None = None
    message: str | None = None


class WaitingView(KubeView, frozen=True, kw_only=True):
    """State of a container that does not run yet."""

    reason: str | None = None
    message: str | None = None


class TerminatedView(KubeView, frozen=True, kw_only=True):
    """State of a container that has ended."""

    exit_code: int = 0
    reason: str | None = None
    message: str | None = None


class StateView(KubeView, frozen=True, kw_only=True):
    """State of a container."""

    waiting: WaitingView | None = None
    running: Mapping[str, Any] | None = None
    terminated: TerminatedView | None = None


class ContainerView(KubeView, frozen=True, kw_only=True):
    """Status of a container."""

    name: str
    state: StateView | None = None


class PodStatusView(KubeView, frozen=True, kw_only=True):
    """Status of a pod."""

    phase: str = "Pending"
    pod_ip: str | None = field(default=None, name="podIP")
    reason: str | None = None
    message: str | None = None
    conditions: list[ConditionView] | None = None
    container_statuses: list[ContainerView] | None = None


class PodView(KubeView, frozen=True, kw_only=True):
    """Pod."""

    metadata: MetaView
    status: PodStatusView = PodStatusView()

    @property
    def job_uid(self) -> str:
        """Uid of the Job that the pod belongs to; empty if there is none."""
        return next((owner.uid for owner in self.metadata.owner_references or () if owner.kind == "Job"), "")

    @property
    def state(self) -> StateView:
        """State of the container with the runner."""
        named = (each for each in self.status.container_statuses or () if each.name == CONTAINER)
        return next((each.state for each in named if each.state), StateView())

    @property
    def is_running(self) -> bool:
        """True if the runner runs and the pod has an address."""
        return self.state.running is not None and bool(self.status.pod_ip)

    @property
    def has_ended(self) -> bool:
        """True if no process of the pod runs any more."""
        return self.state.terminated is not None or self.status.phase in {"Succeeded", "Failed"}

    def condition(self, kind: str, status: str = "True") -> ConditionView | None:
        """Return the condition of this kind, if the pod has it with this status."""
        return condition_in(self.status.conditions, kind, status)


class JobStatusView(KubeView, frozen=True, kw_only=True):
    """Status of a Job."""

    conditions: list[ConditionView] | None = None


class JobView(KubeView, frozen=True, kw_only=True):
    """Job. `spec` is read for the digest of the token alone."""

    metadata: MetaView
    spec: Mapping[str, Any] | None = None
    status: JobStatusView = JobStatusView()

    @property
    def failure(self) -> ConditionView | None:
        """Condition that says why the Job has failed."""
        conditions = self.status.conditions
        return condition_in(conditions, "Failed", "True") or condition_in(conditions, "FailureTarget", "True")

    @property
    def has_ended(self) -> bool:
        """True if the Job has completed or failed, or is being deleted."""
        completed = condition_in(self.status.conditions, "Complete", "True")
        return bool(self.metadata.deletion_timestamp or self.failure or completed)

    def variable(self, name: str) -> str:
        """Return an environment variable of the runner; empty if there is none."""
        try:
            variables = (self.spec or {})["template"]["spec"]["containers"][0]["env"]
            return next(str(each["value"]) for each in variables if each["name"] == name)
        except (LookupError, TypeError, StopIteration):
            return ""


class ObjectReference(KubeView, frozen=True, kw_only=True):
    """Object that an event is about."""

    uid: str = ""


class EventView(KubeView, frozen=True, kw_only=True):
    """Event of a Job."""

    involved_object: ObjectReference
    reason: str | None = None
    message: str | None = None


class ListView(KubeView, Generic[Item], frozen=True, kw_only=True):
    """Page of a list."""

    metadata: MetaView
    items: list[Item] | None = None


class StatusView(KubeView, frozen=True, kw_only=True):
    """Status: the body of an error."""

    code: int = 0
    reason: str | None = None
    message: str | None = None


class WatchEvent(msgspec.Struct, frozen=True):
    """Line of a watch."""

    type: str
    object: msgspec.Raw


def condition_in(conditions: list[ConditionView] | None, kind: str, status: str) -> ConditionView | None:
    """Return the condition of this kind with this status, if there is one."""
    return next((each for each in conditions or () if each.type == kind and each.status == status), None)
