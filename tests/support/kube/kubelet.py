"""Scheduler and kubelet: one coroutine for each pod, which runs its container and reports its status."""

import asyncio
import json
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from tests.support.kube.container import CannotStart, Container, Image, PodFolder
from tests.support.kube.errors import Obj
from tests.support.kube.events import Events
from tests.support.kube.faults import PodFault
from tests.support.kube.following import follow_each
from tests.support.kube.job_controller import Delays
from tests.support.kube.network import PodNetwork
from tests.support.kube.store import Key, Store
from tests.support.kube.workload_controller import is_simulated

NODE = "node-1"
Why: TypeAlias = Literal["ended", "deleted", "removed", "deadline", "evicted", "lost"]


@dataclass
class RunningPod:
    """Pod on the node. `evicted` is the message of an eviction; a `lost` node neither reports nor gets orders."""

    uid: str
    key: Key
    fault: PodFault
    annotations: dict[str, str]
    network: PodNetwork = field(default_factory=PodNetwork)
    container: Container | None = None
    started: str = ""
    evicted: str = ""
    lost: bool = False

    @property
    def job(self) -> str:
        """Name of the Job of the pod."""
        return self.key[1].rpartition("-")[0]


class Kubelet:
    """Kubelet of the only node. `folder` gets a folder for each pod."""

    def __init__(
        self, store: Store, delays: Delays, events: Events, faults_of: dict[str, PodFault], folder: Path, image: Image
    ) -> None:
        self.pods: dict[str, RunningPod] = {}
        self._store = store
        self._delays = delays
        self._events = events
        self._faults_of = faults_of
        self._folder = folder
        self._image = image

    async def run(self) -> None:
        """Run every pod, for ever."""
        await follow_each(self._store, "pods", self._run)

    def stop(self) -> None:
        """Kill all containers."""
        for pod in self.pods.values():
            pod.network.close()
            if pod.container and pod.container.exit_code is None:
                pod.container.kill()

    async def _run(self, key: Key, uid: str) -> None:
        found = self._store.by_uid("pods", key[0], uid)
        if found and is_simulated(found):
            return
        notes = (found["metadata"].get("annotations") or {}) if found else {}
        pod = RunningPod(uid, key, self._faults_of.get(uid) or PodFault(), notes)
        if not await self._schedule(pod):
            return
        self.pods[uid] = pod
        found = self._found(pod)
        if found is None:
            return
        seconds = found["spec"].get("activeDeadlineSeconds")
        deadline_s = None if seconds is None else self._store.now() + seconds
        try:
            why = await self._start(pod, deadline_s)
            while why == "lost" or (why is None and pod.container):
                why = await self._wait(pod, deadline_s)
                if why == "lost":
                    await self._store.wait(lambda: not pod.lost)
            await self._end(pod, why or "ended")
        finally:
            pod.network.close()
            if pod.container and pod.container.exit_code is None:
                await asyncio.to_thread(pod.container.kill)

    async def _schedule(self, pod: RunningPod) -> bool:
        await asyncio.sleep(self._delays.schedule_s)
        found = self._found(pod)
        if found is not None and pod.fault.unschedulable:
            text = pod.fault.unschedulable
            self._status(pod, lambda status: _condition(status, "PodScheduled", "False", "Unschedulable", text))
            self._events.warn("Pod", found, "FailedScheduling", text, "default-scheduler")
            await self._store.wait(lambda: self._gone(pod))
        if self._gone(pod):
            return False

        def bind(new: Obj) -> None:
            new["spec"]["nodeName"] = NODE
            _condition(new["status"], "PodScheduled", "True")

        self._store.update("pods", pod.key, bind)
        return True

    async def _start(self, pod: RunningPod, deadline_s: float | None) -> Why | None:
        """Start the container; return why it did not start, None if it runs or has failed to."""
        fault = pod.fault
        self._status(
            pod, lambda status: status.update(startTime=self._store.timestamp(), hostIP="127.0.0.1", hostIPs=[])
        )
        self._waits(pod, "ContainerCreating", "")
        begins_s = self._store.now() + self._delays.container_s + fault.start_s
        if fault.waiting:
            await self._fail_to_start(pod)
            begins_s = begins_s if fault.start_s else float("inf")
        bounds = [bound for bound in (deadline_s, begins_s) if bound not in {None, float("inf")}]
        await self._store.wait(lambda: self._gone(pod) or pod.evicted or pod.lost, min(bounds, default=None))
        if why := self._why(pod, deadline_s):
            return why
        await self._launch(pod)
        return None

    async def _fail_to_start(self, pod: RunningPod) -> None:
        reason, text = pod.fault.waiting, pod.fault.message or f"injected {pod.fault.waiting}"
        if reason == "ImagePullBackOff":
            self._waits(pod, "ErrImagePull", text)
            await asyncio.sleep(self._delays.container_status_s)
        self._waits(pod, reason, text)
        if found := self._found(pod):
            self._events.warn("Pod", found, "Failed", f"Error: {reason}", "kubelet")

    async def _launch(self, pod: RunningPod) -> None:
        found = self._found(pod)
        if found is None:
            return
        pod.started = self._store.timestamp()
        changes = {"RUNNER_PORT": "0"}  # all pods share the ports of this host
        try:
            if pod.fault.start_error:
                raise CannotStart("injected")
            pod.container = PodFolder(self._folder / pod.uid, self._image).start(found["spec"], changes)
        except CannotStart as error:
            self._terminated(pod, 128, "StartError", f"failed to create containerd task: {error}")
            return
        pod.container.watch(self._store.wake)
        self._status(pod, lambda status: _running(status, found["spec"], pod.network.address, pod.started))
        await self._open_ports(pod, found["spec"])

    async def _open_ports(self, pod: RunningPod, spec: Obj) -> None:
        """Lead the port of the pod to that on which the runner listens, which is in the first line of its log."""
        ports = [port["containerPort"] for port in spec["containers"][0].get("ports", [])]
        while ports and pod.container and pod.container.exit_code is None and not self._gone(pod):
            first, _, rest = pod.container.log.read_bytes().partition(b"\n")
            if rest or first.endswith(b"}"):
                await pod.network.open(ports[0], json.loads(first)["port"])
                return
            await asyncio.sleep(0.01)

    async def _wait(self, pod: RunningPod, deadline_s: float | None) -> Why | None:
        await self._store.wait(lambda: self._why(pod, None), deadline_s)
        return self._why(pod, deadline_s)

    def _why(self, pod: RunningPod, deadline_s: float | None) -> Why | None:
        """Return the reason for which a pod ends or is left alone, None while it runs."""
        found = self._found(pod)
        checks: dict[Why, object] = {
            "lost": pod.lost,
            "removed": found is None,
            "ended": pod.container and pod.container.exit_code is not None,
            "deleted": found and found["metadata"].get("deletionTimestamp"),
            "evicted": pod.evicted,
            "deadline": deadline_s is not None and self._store.now() >= deadline_s,
        }
        return next((why for why, applies in checks.items() if applies), None)

    async def _end(self, pod: RunningPod, why: Why) -> None:
        found = self._found(pod)
        if found is None:
            return
        meta, container = found["metadata"], pod.container
        if container and container.exit_code is None:
            if why in {"deleted", "deadline"}:
                container.signal(signal.SIGTERM)
                seconds = meta.get("deletionGracePeriodSeconds", found["spec"]["terminationGracePeriodSeconds"])
                await self._store.wait(lambda: container.exit_code is not None, self._store.now() + seconds)
            if container.exit_code is None:
                await asyncio.to_thread(container.kill)
        pod.network.close()
        await asyncio.sleep(self._delays.container_status_s)
        if container:
            reason, code = pod.fault.ends or ("", container.exit_code or 0)
            self._terminated(pod, code, reason or ("Completed" if code == 0 else "Error"), "")
        if why in {"deadline", "evicted"}:
            self._status(pod, lambda status: _failed(status, why, pod.evicted))
        if (left := self._found(pod)) and left["metadata"].get("deletionTimestamp"):
            self._store.update("pods", pod.key, _nothing_runs)

    def _waits(self, pod: RunningPod, reason: str, message: str) -> None:
        state = {"waiting": {"reason": reason, **({"message": message} if message else {})}}
        self._status(pod, lambda status: _container(status, self._spec(pod), state))

    def _terminated(self, pod: RunningPod, code: int, reason: str, message: str) -> None:
        now = self._store.timestamp()
        ended: Obj = {"exitCode": code, "reason": reason, "startedAt": pod.started, "finishedAt": now}
        ended |= {"containerID": f"containerd://{pod.uid}"} | ({"message": message} if message else {})

        def change(status: Obj) -> None:
            _container(status, self._spec(pod), {"terminated": ended})
            status["phase"] = "Failed" if code else "Succeeded"
            for name in ("Ready", "ContainersReady"):
                _condition(status, name, "False", "PodFailed" if code else "PodCompleted")

        self._status(pod, change)

    def _status(self, pod: RunningPod, change: Callable[[Obj], Any]) -> None:
        if self._found(pod):
            self._store.update("pods", pod.key, lambda new: change(new["status"]))

    def _spec(self, pod: RunningPod) -> Obj:
        found = self._found(pod)
        return found["spec"] if found else {}

    def _found(self, pod: RunningPod) -> Obj | None:
        found = self._store.find("pods", *pod.key)
        return found if found and found["metadata"]["uid"] == pod.uid else None

    def _gone(self, pod: RunningPod) -> bool:
        found = self._found(pod)
        return found is None or bool(found["metadata"].get("deletionTimestamp"))


def _condition(status: Obj, kind: str, value: str, reason: str = "", message: str = "") -> None:
    made = {"type": kind, "status": value, "lastProbeTime": None, "lastTransitionTime": status.get("startTime")}
    made |= {name: text for name, text in (("reason", reason), ("message", message)) if text}
    others = [found for found in status.get("conditions", []) if found["type"] != kind]
    status["conditions"] = [*others, made]


def _container(status: Obj, spec: Obj, state: Obj) -> None:
    container = (spec.get("containers") or [{"name": "", "image": ""}])[0]
    made = {
        "name": container["name"],
        "image": container["image"],
        "imageID": "" if "waiting" in state else container["image"],
        "restartCount": 0,
        "ready": "running" in state,
        "started": "running" in state,
        "state": state,
        "lastState": {},
    }
    status["containerStatuses"] = [made]


def _running(status: Obj, spec: Obj, address: str, started: str) -> None:
    _container(status, spec, {"running": {"startedAt": started}})
    status |= {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
    for name in ("Initialized", "Ready", "ContainersReady"):
        _condition(status, name, "True")


def _failed(status: Obj, why: Why, message: str) -> None:
    status["phase"] = "Failed"
    if why == "deadline":
        text = "Pod was active on the node longer than the specified deadline"
        status |= {"reason": "DeadlineExceeded", "message": text}
        return
    status |= {"reason": "Evicted", "message": message}
    _condition(status, "DisruptionTarget", "True", "TerminationByKubelet", message)


def _nothing_runs(pod: Obj) -> None:
    pod["metadata"]["deletionGracePeriodSeconds"] = 0
    if pod["status"]["phase"] not in {"Succeeded", "Failed"}:
        pod["status"]["phase"] = "Failed"
