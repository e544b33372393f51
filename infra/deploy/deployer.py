"""Deployment and rollback: the order of their steps, and the record of how far they came.

Workers are upgraded before the API, and return to an older release after it: an older worker leaves runs alone that a
newer API has written, so in the other order such runs would wait.
"""

import time
from collections.abc import Callable
from typing import Literal

import msgspec

from infra.deploy.cluster import KubectlCluster, Object
from infra.deploy.description import Description
from infra.deploy.edge import EdgeDeployment
from infra.deploy.errors import DeployFailed
from infra.deploy.lock import Lock
from infra.deploy.manifests import API, WORKER, Manifests
from infra.deploy.programs import ProgramFailed
from infra.deploy.record import Attempt, EdgeState, Record, Snapshot, State, now, person
from infra.deploy.rollout import REVISION, current_replica_set, wait
from infra.deploy.sources import BASE, Chart, Source

UNKNOWN = "unknown"
"""Release of what was deployed without a record."""
ROLLOUT_S = 900.0
PART_OF = "app.kubernetes.io/part-of=swissbrain-agent"


class Deployer:
    """Steps of a deployment and of a rollback. `lock` is None in a dry run. All methods may raise DeployFailed.

    `timeout_s`: for each rollout, ROLLOUT_S if it is None.
    """

    def __init__(
        self,
        description: Description,
        cluster: KubectlCluster,
        lock: Lock | None,
        *,
        release: str,
        timeout_s: float | None = None,
    ) -> None:
        self.record = Record(cluster)
        self._description = description
        self._cluster = cluster
        self._lock = lock
        self._release = release
        self._timeout_s = ROLLOUT_S if timeout_s is None else timeout_s
        self.edge = EdgeDeployment(cluster.programs, description.edge) if description.edge else None

    @property
    def is_dry(self) -> bool:
        """Dry run: nothing is changed."""
        return self._cluster.programs.dry_run

    def deploy(self, source: Source, *, down: bool) -> Snapshot:
        """Apply everything in its order and wait for it; return what runs then. `down`: to an older release."""
        try:
            state = self._known(source)
        except DeployFailed:
            if not self.is_dry:
                raise
            state = State()  # the steps are shown without a cluster too
        self._begin("deploy", state)
        order = (BASE, "edge", API, WORKER) if down else (BASE, WORKER, API, "edge")
        timestamps: list[str] = []
        for stage in order:
            self._check()
            if stage == "edge":
                timestamps = self._deploy_edge()
            elif stage == BASE or source.manifests.named("Deployment", stage) is not None:
                self._apply(source, stage, last=self._is_last(source, stage, down=down))
        if self.is_dry:
            return state.running or _nothing(self._release)
        return self._snapshot(source, timestamps)

    def _is_last(self, source: Source, stage: str, *, down: bool) -> bool:
        later = WORKER if down else API
        return stage == later or source.manifests.named("Deployment", later) is None

    def _apply(self, source: Source, stage: str, *, last: bool) -> None:
        source.apply(stage, last=last)
        if stage != BASE:
            waited = [f"deployment/{stage}"]
        elif isinstance(source, Chart):
            waited = []
        else:
            waited = others(source.manifests)
        if isinstance(source, Chart) and stage != BASE and last:
            waited = [*others(source.manifests), *waited]
        for workload in waited:
            self._wait(workload)

    def _deploy_edge(self) -> list[str]:
        if self.edge is None:
            return []
        self.edge.deploy()
        return [] if self.is_dry else self.edge.timestamps()

    def succeed(self, snapshot: Snapshot) -> None:
        """Record that what runs was verified."""
        state = self.record.state
        changed = state.running is None or not snapshot.same_programs(state.running)
        before = state.running if changed else state.before
        running = snapshot
        if state.running is not None and not changed:  # deployed once more: the time and the person stay
            running = msgspec.structs.replace(state.running, edge=snapshot.edge, helm_revision=snapshot.helm_revision)
        self.record.write(State(running=running, before=before, attempt=_ended(state, "done")))

    def fail(self, reason: str) -> None:
        """Record that the attempt has failed."""
        state = self.record.state
        self.record.write(msgspec.structs.replace(state, attempt=_ended(state, "failed", reason)))

    def way_back(self) -> Snapshot:
        """Return where a rollback leads to. Raises DeployFailed if there is no way back."""
        state = self.record.read()
        target = state.way_back()
        if target is None and state.attempt is None:
            raise DeployFailed("there is no record of a deployment; 'swissbrain deploy' makes one")
        if target is None:
            raise DeployFailed("nothing is recorded before the last deployment; deploy other images instead")
        return target

    def roll_back(self, target: Snapshot, *, down: bool) -> None:
        """Return to what ran before, in the order for an older release. Parts that run already are left alone."""
        state = self.record.state
        is_repeated = state.is_settled and state.attempt is not None and state.attempt.action == "rollback"
        self._begin("rollback", State(running=target, attempt=state.attempt))
        present = self._present()
        changed = [name for name, wanted in target.replica_sets.items() if present.get(name) != wanted]
        between = sorted(set(changed) - {API, WORKER})
        deployed = [API, *between, WORKER] if down else [WORKER, *between, API]
        steps: list[Callable[[], None]] = [
            lambda name=name: self._undo(name, target.replica_sets[name])  # type: ignore[misc]
            for name in deployed
            if name in changed
        ]
        if target.helm_revision is not None and changed:
            steps = [lambda: self._roll_back_chart(target, changed)]
        edge = target.edge
        if edge is not None and not is_repeated:
            back = lambda: self._roll_back_edge(edge)  # noqa: E731
            steps = [back, *steps] if down else [*steps, back]
        for step in steps:
            self._check()
            step()

    def end_rollback(self, target: Snapshot) -> None:
        """Record that the rollback was verified."""
        self.record.write(State(running=target, attempt=_ended(self.record.state, "done")))

    def _undo(self, name: str, replica_set: str) -> None:
        """Return a Deployment to the pod template of a ReplicaSet, whatever its revision is by now."""
        found = self._cluster.find("replicaset", replica_set)
        if found is None:
            raise DeployFailed(f"the ReplicaSet {replica_set} is not kept any more; deploy the earlier images instead")
        revision = found["metadata"]["annotations"][REVISION]
        command = self._cluster.within("rollout", "undo", f"deployment/{name}", f"--to-revision={revision}")
        try:
            # Not repeated as it is: if only its answer was lost, the ReplicaSet has another revision by now.
            self._cluster.programs.change(*command, tries=1)
        except ProgramFailed as exc:
            if self._present().get(name) != replica_set:
                raise
            self._cluster.programs.say(f"  it was carried out all the same: {exc}")
        self._wait(f"deployment/{name}")

    def _roll_back_chart(self, target: Snapshot, changed: list[str]) -> None:
        if self._description.chart is None or target.helm_revision is None:
            raise DeployFailed("the last deployment used the chart, the description names an overlay")
        Chart(self._description, self._cluster).roll_back(target.helm_revision)
        for name in changed:
            self._wait(f"deployment/{name}")

    def _roll_back_edge(self, edge: EdgeState) -> None:
        if self.edge is None:
            raise DeployFailed("the last deployment had an edge, the description has none; add [edge]")
        self.edge.roll_back(edge)

    def _begin(self, action: Literal["deploy", "rollback"], state: State) -> None:
        """Record the begin of an attempt."""
        attempt = Attempt(action=action, phase="begun", release=self._release, at=now(), by=person())
        self.record.write(msgspec.structs.replace(state, attempt=attempt))

    def _known(self, source: Source) -> State:
        """Return the state; if there is no record, what runs without one is the way back."""
        state = self.record.read()
        if state.running is not None or state.attempt is not None:
            return state
        timestamps = self.edge.timestamps() if self.edge and not self.edge.missing() else []
        found = self._snapshot(source, timestamps)
        if not found.replica_sets:
            return state
        edge = found.edge and msgspec.structs.replace(found.edge, package=UNKNOWN)
        return State(running=msgspec.structs.replace(found, release=UNKNOWN, by="unknown", edge=edge))

    def _snapshot(self, source: Source, timestamps: list[str]) -> Snapshot:
        """Return what runs now."""
        return self._snapshot_of(
            self._cluster.all("deployments,replicasets", PART_OF),
            source.revision() if isinstance(source, Chart) else None,
            self.edge.state(timestamps[-1]) if self.edge and timestamps else None,
        )

    def _snapshot_of(self, found: list[Object], helm_revision: int | None, edge: EdgeState | None) -> Snapshot:
        images = {
            each["metadata"]["name"]: each["spec"]["template"]["spec"]["containers"][0]["image"]
            for each in found
            if each["kind"] == "Deployment"
        }
        return Snapshot(
            release=self._release,
            at=now(),
            by=person(),
            images=images,
            replica_sets=_replica_sets(found),
            helm_revision=helm_revision,
            edge=edge,
        )

    def _present(self) -> dict[str, str]:
        """Return the present ReplicaSets by Deployment."""
        return _replica_sets(self._cluster.all("deployments,replicasets", PART_OF))

    def _wait(self, workload: str) -> None:
        wait(self._cluster, workload, time.monotonic() + self._timeout_s)
        self._check()

    def _check(self) -> None:
        if self._lock is not None:
            self._lock.check()


def _replica_sets(found: list[Object]) -> dict[str, str]:
    """Return the names of the present ReplicaSets by Deployment, from Deployments and ReplicaSets."""
    current = {
        each["metadata"]["name"]: current_replica_set(each, found) for each in found if each["kind"] == "Deployment"
    }
    return {name: each["metadata"]["name"] for name, each in current.items() if each is not None}


def others(manifests: Manifests) -> list[str]:
    """Return the programs beside workers and API, those with data first, because others need them."""
    found = [name for name in manifests.workloads if name.partition("/")[2] not in {WORKER, API}]
    return sorted(found, key=lambda name: (not name.startswith("statefulset/"), name))


def _ended(state: State, phase: Literal["failed", "done"], reason: str = "") -> Attempt | None:
    return state.attempt and msgspec.structs.replace(state.attempt, phase=phase, reason=reason[:500])


def _nothing(release: str) -> Snapshot:
    return Snapshot(release=release, at=now(), by=person(), images={}, replica_sets={})
