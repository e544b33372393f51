"""Job controller: one coroutine for each Job, from its first pod to its condition and its end by TTL.

Supports what one program needs: one completion, `backoffLimit`, `podFailurePolicy`, `activeDeadlineSeconds`,
`podReplacementPolicy: Failed`, `ttlSecondsAfterFinished`.
"""

import asyncio
import copy
import random
from collections.abc import Callable
from dataclasses import dataclass

from tests.support.kube import pod_security
from tests.support.kube.deletion import DeleteOptions, delete
from tests.support.kube.errors import Obj
from tests.support.kube.events import Events
from tests.support.kube.faults import Faults, PodFault
from tests.support.kube.following import follow_each
from tests.support.kube.store import Key, Store, key_of

TRACKING = "batch.kubernetes.io/job-tracking"
FINISHED = {"Succeeded", "Failed"}
_LETTERS = "bcdfghjklmnpqrstvwxz2456789"


@dataclass
class Delays:
    """Delays of the controllers in seconds. On a real node `job_status_s` is about 1.4."""

    job_seen_s: float = 0.0
    pod_retry_s: float = 0.2
    schedule_s: float = 0.0
    container_s: float = 0.0
    container_status_s: float = 0.0
    job_status_s: float = 0.05
    garbage_s: float = 0.02


class JobController:
    """Controller of all Jobs. `faults_of` has the fault of each pod by its uid."""

    def __init__(self, store: Store, faults: Faults, delays: Delays, events: Events) -> None:
        self.faults_of: dict[str, PodFault] = {}
        self._store = store
        self._faults = faults
        self._delays = delays
        self._events = events

    async def run(self) -> None:
        """Follow every Job, for ever."""
        await follow_each(self._store, "jobs", self._follow)

    async def _follow(self, key: Key, uid: str) -> None:
        try:
            await self._sleep(self._delays.job_seen_s)
            if self._job(key, uid) is None:
                return
            self._update(key, uid, lambda job: job["status"].update(startTime=self._store.timestamp(), ready=0))
            if await self._to_end(key, uid):
                await self._expire(key, uid)
        finally:
            for pod in self._pods(key[0], uid):
                self._release(pod)

    async def _to_end(self, key: Key, uid: str) -> bool:
        """Make pods until one succeeds or none may follow; return False if the Job was deleted meanwhile."""
        job = self._store.get("jobs", *key)
        seconds = job["spec"].get("activeDeadlineSeconds")
        deadline_s = None if seconds is None else self._store.now() + seconds
        failures = 0
        while True:
            pod = await self._make_pod(key, uid, deadline_s)
            if pod is None and self._job(key, uid) is None:
                return False
            if pod is None or not await self._pod_ended(key, uid, key_of(pod), pod["metadata"]["uid"], deadline_s):
                if self._job(key, uid) is None:
                    return False
                await self._pass_deadline(key, uid)
                return True
            ended = self._last_state(pod)
            self._release(pod)
            await self._sleep(self._delays.job_status_s)
            if ended["status"]["phase"] == "Succeeded":
                self._finish(key, uid, "Complete", "CompletionsReached", "Reached expected number of succeeded pods")
                return True
            action, reason, message = _judge(job, ended)
            failures += action != "Ignore"
            if action == "FailJob" or failures > job["spec"]["backoffLimit"]:
                self._finish(key, uid, "Failed", reason, message)
                return True

    async def _make_pod(self, key: Key, uid: str, deadline_s: float | None) -> Obj | None:
        """Make a pod; None if the Job is deleted or its deadline passes before one is allowed."""
        while (job := self._job(key, uid)) is not None:
            pod = _pod(job)
            fault = self._faults.for_pod(pod)
            refusal = fault.failed_create or pod_security.refusal(self._store, pod)
            if not refusal:
                made = self._store.create("pods", pod)
                self.faults_of[made["metadata"]["uid"]] = fault
                self._update(key, uid, lambda new: new["status"].update(active=1, ready=0))
                return made
            text = f'Error creating: pods "{pod["metadata"]["name"]}" is forbidden: {refusal}'
            self._events.warn("Job", job, "FailedCreate", text, "job-controller")
            again_s = self._store.now() + self._delays.pod_retry_s
            await self._store.wait(
                lambda: self._job(key, uid) is None, again_s if deadline_s is None else min(again_s, deadline_s)
            )
            if deadline_s is not None and self._store.now() >= deadline_s:
                return None
        return None

    async def _pod_ended(self, key: Key, uid: str, pod: Key, pod_uid: str, deadline_s: float | None) -> bool:
        """Wait for the end of a pod; False if the Job was deleted or its deadline has passed."""

        def ended() -> bool:
            found = self._store.find("pods", *pod)
            if found is None or found["metadata"]["uid"] != pod_uid or found["status"]["phase"] in FINISHED:
                return True
            # With the tracking finalizer it would stay for ever if it never ran.
            meta = found["metadata"]
            return bool(meta.get("deletionTimestamp")) and not meta.get("deletionGracePeriodSeconds")

        await self._store.wait(lambda: self._job(key, uid) is None or ended(), deadline_s)
        return self._job(key, uid) is not None and ended()

    def _last_state(self, pod: Obj) -> Obj:
        """Return the last state of a pod, which may not exist any more."""
        uid = pod["metadata"]["uid"]
        states = [change.after for change in self._store.history if change.after["metadata"].get("uid") == uid]
        return self._store.by_uid("pods", key_of(pod)[0], uid) or (states[-1] if states else pod)

    async def _pass_deadline(self, key: Key, uid: str) -> None:
        """Delete the pod, which takes its log with it, and report the Job as failed once the pod has ended."""
        for pod in self._pods(key[0], uid):
            delete(self._store, "pods", key_of(pod), DeleteOptions())
            self._release(pod)
        await self._store.wait(lambda: not self._pods(key[0], uid))
        await self._sleep(self._delays.job_status_s)
        self._finish(key, uid, "Failed", "DeadlineExceeded", "Job was active longer than specified deadline")

    def _finish(self, key: Key, uid: str, condition: str, reason: str, message: str) -> None:
        now = self._store.timestamp()
        early = "SuccessCriteriaMet" if condition == "Complete" else "FailureTarget"

        def change(job: Obj) -> None:
            status = job["status"]
            status["conditions"] = [
                {
                    "type": kind,
                    "status": "True",
                    "lastProbeTime": now,
                    "lastTransitionTime": now,
                    "reason": reason,
                    "message": message,
                }
                for kind in (early, condition)
            ]
            status.pop("active", None)
            status["succeeded" if condition == "Complete" else "failed"] = 1
            status["ready"] = 0
            if condition == "Complete":
                status["completionTime"] = now

        self._update(key, uid, change)

    async def _expire(self, key: Key, uid: str) -> None:
        """Delete the finished Job and its pods after its TTL."""
        job = self._job(key, uid)
        ttl_s = job["spec"].get("ttlSecondsAfterFinished") if job else None
        if ttl_s is None:
            return
        await self._store.wait(lambda: self._job(key, uid) is None, self._store.now() + ttl_s)
        if self._job(key, uid):
            delete(self._store, "jobs", key, DeleteOptions("Background"))

    def _job(self, key: Key, uid: str) -> Obj | None:
        """Return the Job unless it is deleted, or about to be."""
        job = self._store.find("jobs", *key)
        if job is None or job["metadata"]["uid"] != uid or job["metadata"].get("deletionTimestamp"):
            return None
        return job

    def _pods(self, namespace: str, uid: str) -> list[Obj]:
        """Return the pods of a Job, also of one that does not own them any more."""
        label = "batch.kubernetes.io/controller-uid"
        return [pod for pod in self._store.all("pods", namespace) if pod["metadata"]["labels"].get(label) == uid]

    def _release(self, pod: Obj) -> None:
        """Remove the finalizer, without which a deleted pod stays."""
        if found := self._store.by_uid("pods", key_of(pod)[0], pod["metadata"]["uid"]):
            self._store.update("pods", key_of(found), _untracked)

    def _update(self, key: Key, uid: str, change: Callable[[Obj], object]) -> None:
        if self._job(key, uid):
            self._store.update("jobs", key, change)

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def _untracked(pod: Obj) -> None:
    left = [name for name in pod["metadata"].pop("finalizers", []) if name != TRACKING]
    if left:
        pod["metadata"]["finalizers"] = left


def _pod(job: Obj) -> Obj:
    template, meta = copy.deepcopy(job["spec"]["template"]), job["metadata"]
    suffix = "".join(random.choices(_LETTERS, k=5))
    owner = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": meta["name"],
        "uid": meta["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return {
        "metadata": {
            **template.get("metadata", {}),
            "name": f"{meta['name'][:57]}-{suffix}",
            "generateName": f"{meta['name'][:57]}-",
            "namespace": meta["namespace"],
            "ownerReferences": [owner],
            "finalizers": [TRACKING],
        },
        "spec": template["spec"],
        "status": {"phase": "Pending", "qosClass": "Burstable"},
    }


def _judge(job: Obj, pod: Obj) -> tuple[str, str, str]:
    """Return action, reason and message for a failed pod: the first rule that matches, else the backoff limit."""
    rules = (job["spec"].get("podFailurePolicy") or {}).get("rules", [])
    name = "/".join(key_of(pod))
    for index, rule in enumerate(rules):
        if matched := _matches(rule, pod):
            return (
                rule["action"],
                "PodFailurePolicy",
                f"Pod {name} has {matched} matching {rule['action']} rule at index {index}",
            )
    return "Count", "BackoffLimitExceeded", "Job has reached the specified backoff limit"


def _matches(rule: Obj, pod: Obj) -> str:
    conditions = {(found["type"], found["status"]) for found in pod["status"].get("conditions", [])}
    for wanted in rule.get("onPodConditions") or []:
        if (wanted["type"], wanted.get("status", "True")) in conditions:
            return f"condition {wanted['type']}"
    if wanted := rule.get("onExitCodes"):
        for status in pod["status"].get("containerStatuses", []):
            code = status["state"].get("terminated", {}).get("exitCode", 0)
            if code and (code in wanted["values"]) is (wanted["operator"] == "In"):
                return f"exit code {code}"
    return ""
