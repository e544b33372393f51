"""Record of deployments in the cluster: ConfigMap `swissbrain-release`. It is how a rollback knows where to go.

`running` is what was last verified, `before` what ran before that. A deployment that has not ended well changes
neither, so a repeated one still knows where a rollback leads to. A rollback sets `running` to its destination before
its first step, so after an interrupted rollback the next one has the same destination.
"""

import os
import socket
from datetime import UTC, datetime
from typing import Literal

import msgspec

from infra.deploy.cluster import KubectlCluster, Object, VersionConflict
from infra.deploy.errors import DeployFailed

NAME = "swissbrain-release"
KEY = "state.json"


class EdgeState(msgspec.Struct, frozen=True, kw_only=True):
    """Deployment of the edge: `timestamp` is its name for `osls rollback`, `package` the SHA-256 of its zip."""

    timestamp: str
    package: str
    stage: str
    region: str
    params: dict[str, str | int] = {}


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """State of the programs at a time: images and ReplicaSets by Deployment.

    `release` is the version of the command that deployed. A ReplicaSet is named after its pod template, so the same
    template always has the same one; revisions are counted on.
    """

    release: str
    at: str
    by: str
    images: dict[str, str]
    replica_sets: dict[str, str]
    helm_revision: int | None = None
    edge: EdgeState | None = None

    def same_programs(self, other: "Snapshot") -> bool:
        """Return whether the same programs run in both."""
        edges = [each.edge and (each.edge.package, each.edge.params) for each in (self, other)]
        return self.replica_sets == other.replica_sets and edges[0] == edges[1]

    def __str__(self) -> str:
        """Return release, time and person."""
        return f"release {self.release}, deployed {self.at} by {self.by}"


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """Deployment or rollback: begun, failed with a reason, or done."""

    action: Literal["deploy", "rollback"]
    phase: Literal["begun", "failed", "done"]
    release: str
    at: str
    by: str
    reason: str = ""


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Content of the record."""

    running: Snapshot | None = None
    before: Snapshot | None = None
    attempt: Attempt | None = None

    @property
    def is_settled(self) -> bool:
        """No attempt is unfinished, so `running` is what runs."""
        return self.attempt is None or self.attempt.phase == "done"

    def way_back(self) -> Snapshot | None:
        """Return where a rollback leads to: to what ran before a deployment that has ended well, else to `running`."""
        if self.attempt and self.attempt.action == "deploy" and self.attempt.phase == "done":
            return self.before
        return self.running


class Record:
    """State in the cluster. A write fails if another process has written since this one has read."""

    def __init__(self, cluster: KubectlCluster) -> None:
        self._cluster = cluster
        self._version: str | None = None
        self.state = State()

    def read(self) -> State:
        """Read and return the state. Raises DeployFailed."""
        found = self._cluster.find("configmap", NAME)
        self._version = None if found is None else found["metadata"]["resourceVersion"]
        self.state = State() if found is None else _decoded(found)
        return self.state

    def write(self, state: State) -> None:
        """Store a state. Raises DeployFailed."""
        if self._cluster.programs.dry_run:
            return
        meta = {"name": NAME, "namespace": self._cluster.namespace}
        obj: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": _shown(state)}
        if self._version is not None:
            meta["resourceVersion"] = self._version
        try:
            self._version = self._cluster.write(obj)["metadata"]["resourceVersion"]
        except DeployFailed as exc:
            # The answer to a write that was carried out may be lost.
            wrote = self.read() == state
            if not wrote and isinstance(exc, VersionConflict):
                raise DeployFailed(
                    f"the ConfigMap {NAME} was changed by another process; see 'swissbrain deploy --status'"
                ) from None
            if not wrote:
                raise
        self.state = state


def _shown(state: State) -> dict[str, str]:
    """Return the data of the ConfigMap: the state, and the parts that a person looks for."""
    running = state.running
    shown = {KEY: msgspec.json.encode(state).decode()}
    if running is not None:
        images = "".join(f"{name}: {image}\n" for name, image in sorted(running.images.items()))
        shown |= {"release": running.release, "deployed": running.at, "images": images}
    return shown


def _decoded(found: Object) -> State:
    try:
        return msgspec.json.decode((found.get("data") or {}).get(KEY, ""), type=State)
    except msgspec.MsgspecError as exc:
        raise DeployFailed(f"the ConfigMap {NAME} cannot be read ({exc}); delete it to begin a new record") from None


def now() -> str:
    """Return the time, as records have it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def person() -> str:
    """Return who deploys, and on which machine."""
    name = os.environ.get("USER") or f"uid {os.geteuid()}"
    return f"{name}@{socket.gethostname()}"[:100]
