"""Controllers of Deployments, ReplicaSets and StatefulSets, with pods that no node runs: their states are set here.

A new pod is ready at once, or as its PodFault says; if a Secret of it is missing, its container does not start. Old
pods go when all new ones are ready, as with `maxUnavailable: 0`. A Deployment that comes back to a former pod template
uses its former ReplicaSet again, which then has the newest revision.
"""

import hashlib
import json
from typing import Any

from tests.support.kube import pod_security
from tests.support.kube.deletion import DeleteOptions, delete
from tests.support.kube.errors import Obj
from tests.support.kube.faults import Faults, PodFault
from tests.support.kube.store import Store, key_of

REVISION = "deployment.kubernetes.io/revision"
HASH = "pod-template-hash"
SETS_HASH = "controller-revision-hash"
CRASHES = 3
PROGRESS_S = 600


def is_simulated(pod: Obj) -> bool:
    """Return whether a pod is one of a Deployment or a StatefulSet."""
    return bool({HASH, SETS_HASH} & (pod["metadata"].get("labels") or {}).keys())


class WorkloadController:
    """Controller of all Deployments and StatefulSets of a store."""

    def __init__(self, store: Store, faults: Faults) -> None:
        self._store = store
        self._faults = faults
        self._pod_faults: dict[str, tuple[PodFault, float]] = {}
        self._began: dict[tuple[str, str], float] = {}

    async def run(self) -> None:
        """Bring all objects to their specification, for ever."""
        while True:
            seen = self._store.version
            for deployment in self._store.all("deployments"):
                self._deployment(deployment)
            for stateful in self._store.all("statefulsets"):
                self._stateful_set(stateful)
            if self._store.version == seen:
                due_s = min(self._due(), default=None)
                await self._store.wait(lambda seen=seen: self._store.version != seen, due_s)  # type: ignore[misc]

    def _due(self) -> list[float]:
        """Return the times at which pods become ready, or a rollout has taken too long."""
        starts = [begun + fault.start_s for fault, begun in self._pod_faults.values()]
        limits = [
            self._began[each["metadata"]["uid"], each["metadata"]["name"]]
            + each["spec"].get("progressDeadlineSeconds", PROGRESS_S)
            for each in self._store.all("deployments")
            if (each["metadata"]["uid"], each["metadata"]["name"]) in self._began
        ]
        return [time for time in (*starts, *limits) if time > self._store.now()]

    def _deployment(self, deployment: Obj) -> None:
        key, spec = key_of(deployment), deployment["spec"]
        own = self._replica_sets(deployment)
        current = self._current(deployment, own)
        wanted = spec.get("replicas", 1)
        ready, refusal = self._scale(current, wanted, HASH, _hash(spec["template"]))
        old = [each for each in own if each["metadata"]["uid"] != current["metadata"]["uid"]]
        complete = ready == wanted
        for each in old:
            if complete:
                self._scale(each, 0, HASH, each["metadata"]["labels"][HASH])
        left = sum(len(self._pods(each)) for each in old)
        mine = len(self._pods(current))
        status = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": mine + left,
            "updatedReplicas": mine,
            "readyReplicas": ready + left,
            "availableReplicas": ready + left,
            "unavailableReplicas": max(0, wanted - ready - left),
            "conditions": self._conditions(deployment, current, complete and not left, refusal),
        }
        revision = current["metadata"]["annotations"][REVISION]

        def change(new: Obj) -> None:
            new["status"] = {name: value for name, value in status.items() if value not in (0, [])}
            new["metadata"].setdefault("annotations", {})[REVISION] = revision

        self._store.update("deployments", key, change)

    def _conditions(self, deployment: Obj, current: Obj, complete: bool, refusal: str) -> list[Obj]:
        key = deployment["metadata"]["uid"], deployment["metadata"]["name"]
        if complete:
            self._began.pop(key, None)
            text = f'ReplicaSet "{current["metadata"]["name"]}" has successfully progressed.'
            progress = {"status": "True", "reason": "NewReplicaSetAvailable", "message": text}
        else:
            began_s = self._began.setdefault(key, self._store.now())
            late = self._store.now() >= began_s + deployment["spec"].get("progressDeadlineSeconds", PROGRESS_S)
            reason = "ProgressDeadlineExceeded" if late else "ReplicaSetUpdated"
            progress = {"status": "False" if late else "True", "reason": reason, "message": f"{reason} of the test"}
        available = {"type": "Available", "status": "True" if complete else "False"}
        found = [available, {"type": "Progressing", **progress}]
        if refusal:
            found.append({"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": refusal})
        return found

    def _replica_sets(self, deployment: Obj) -> list[Obj]:
        uid = deployment["metadata"]["uid"]
        return [
            each
            for each in self._store.all("replicasets", deployment["metadata"]["namespace"])
            if each["metadata"]["ownerReferences"][0]["uid"] == uid
        ]

    def _current(self, deployment: Obj, own: list[Obj]) -> Obj:
        """Return the ReplicaSet of the present pod template, made or renewed."""
        meta, template = deployment["metadata"], deployment["spec"]["template"]
        digest = _hash(template)
        newest = max((int(each["metadata"]["annotations"][REVISION]) for each in own), default=0)
        name = f"{meta['name']}-{digest}"
        found = next((each for each in own if each["metadata"]["name"] == name), None)
        if found is None:
            self._began[meta["uid"], meta["name"]] = self._store.now()
            labels = {**template["metadata"]["labels"], HASH: digest}
            made = {
                "metadata": {
                    "name": name,
                    "namespace": meta["namespace"],
                    "labels": labels,
                    "annotations": {REVISION: str(newest + 1)},
                    "ownerReferences": [_owner("Deployment", meta)],
                },
                "spec": {
                    "replicas": deployment["spec"].get("replicas", 1),
                    "selector": {"matchLabels": labels},
                    "template": {"metadata": {"labels": labels}, "spec": template["spec"]},
                },
                "status": {},
            }
            return self._store.create("replicasets", made)
        if int(found["metadata"]["annotations"][REVISION]) < newest:
            self._began[meta["uid"], meta["name"]] = self._store.now()
            key = key_of(found)
            return self._store.update(
                "replicasets", key, lambda new: new["metadata"]["annotations"].update({REVISION: str(newest + 1)})
            )
        return found

    def _stateful_set(self, stateful: Obj) -> None:
        spec, meta = stateful["spec"], stateful["metadata"]
        digest = _hash(spec["template"])
        for pod in self._pods(stateful):
            if pod["metadata"]["labels"][SETS_HASH] != digest:
                delete(self._store, "pods", key_of(pod), DeleteOptions(grace_s=0))
        wanted = spec.get("replicas", 1)
        ready, _ = self._scale(stateful, wanted, SETS_HASH, digest)
        status = {
            "observedGeneration": meta["generation"],
            "replicas": wanted,
            "readyReplicas": ready,
            "updatedReplicas": ready,
            "availableReplicas": ready,
            "currentRevision": digest if ready == wanted else "former",
            "updateRevision": digest,
        }
        self._store.update("statefulsets", key_of(stateful), lambda new: new.update(status=status))

    def _scale(self, owner: Obj, wanted: int, label: str, digest: str) -> tuple[int, str]:
        """Make or delete pods; return how many are ready, and why a pod could not be made."""
        if owner["kind"] == "ReplicaSet" and owner["spec"]["replicas"] != wanted:
            owner = self._store.update("replicasets", key_of(owner), lambda new: new["spec"].update(replicas=wanted))
        pods = self._pods(owner)
        for pod in pods[wanted:]:
            self._pod_faults.pop(pod["metadata"]["uid"], None)
            delete(self._store, "pods", key_of(pod), DeleteOptions(grace_s=0))
        for number in range(len(pods), wanted):
            if refusal := self._make(owner, number, label, digest):
                return 0, refusal
        return sum(self._become(pod) for pod in self._pods(owner)), ""

    def _make(self, owner: Obj, number: int, label: str, digest: str) -> str:
        meta, template = owner["metadata"], owner["spec"]["template"]
        pod = {
            "metadata": {
                "name": f"{meta['name']}-{number}",
                "namespace": meta["namespace"],
                "labels": {**template["metadata"]["labels"], label: digest},
                "ownerReferences": [_owner(owner["kind"], meta)],
            },
            "spec": template["spec"],
            "status": {"phase": "Pending"},
        }
        fault = self._faults.for_pod(pod)
        if refused := fault.failed_create or pod_security.refusal(self._store, pod):
            return f'pods "{pod["metadata"]["name"]}" is forbidden: {refused}'
        made = self._store.create("pods", pod)
        self._pod_faults[made["metadata"]["uid"]] = fault, self._store.now()
        return ""

    def _become(self, pod: Obj) -> bool:
        """Set the status of a pod that its fault and its Secrets demand; return whether it is ready."""
        fault, begun_s = self._pod_faults.get(pod["metadata"]["uid"], (PodFault(), 0.0))
        container = pod["spec"]["containers"][0]
        named: Obj = {"name": container["name"], "image": container["image"], "ready": False, "restartCount": 0}
        missing = self._missing_secret(pod)
        ready = False
        if fault.unschedulable:
            unfit = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
            status: Obj = {"phase": "Pending", "conditions": [{**unfit, "message": fault.unschedulable}]}
        elif fault.waiting or missing:
            waiting = {"reason": fault.waiting or "CreateContainerConfigError", "message": fault.message or missing}
            status = {"phase": "Pending", "containerStatuses": [{**named, "state": {"waiting": waiting}}]}
        elif fault.ends:
            reason, code = fault.ends
            last = {"terminated": {"reason": reason, "exitCode": code, "message": fault.message}}
            text = f"back-off 20s restarting failed container={container['name']}"
            state = {"waiting": {"reason": "CrashLoopBackOff", "message": text}}
            found = {**named, "restartCount": CRASHES, "state": state, "lastState": last}
            status = {"phase": "Running", "containerStatuses": [found]}
        else:
            ready = self._store.now() >= begun_s + fault.start_s
            found = {**named, "ready": ready, "state": {"running": {}}}
            status = {
                "phase": "Running",
                "conditions": [{"type": "Ready", "status": str(ready)}],
                "containerStatuses": [found],
            }
        self._store.update("pods", key_of(pod), lambda new: new.update(status=status))
        return ready

    def _missing_secret(self, pod: Obj) -> str:
        """Return the kubelet's message about the first Secret, or key of one, that the pod lacks."""
        for container in pod["spec"]["containers"]:
            for variable in container.get("env") or []:
                wanted: Any = (variable.get("valueFrom") or {}).get("secretKeyRef")
                if wanted is None or wanted.get("optional"):
                    continue
                found = self._store.find("secrets", pod["metadata"]["namespace"], wanted["name"])
                if found is None:
                    return f'secret "{wanted["name"]}" not found'
                if wanted["key"] not in (found.get("data") or {}):
                    return (
                        f"couldn't find key {wanted['key']} in Secret {pod['metadata']['namespace']}/{wanted['name']}"
                    )
        return ""

    def _pods(self, owner: Obj) -> list[Obj]:
        uid = owner["metadata"]["uid"]
        return [
            pod
            for pod in self._store.all("pods", owner["metadata"]["namespace"])
            if any(each["uid"] == uid for each in pod["metadata"].get("ownerReferences") or [])
        ]


def _hash(template: Obj) -> str:
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]


def _owner(kind: str, meta: Obj) -> Obj:
    named = {"apiVersion": "apps/v1", "kind": kind, "name": meta["name"], "uid": meta["uid"]}
    return {**named, "controller": True, "blockOwnerDeletion": True}
