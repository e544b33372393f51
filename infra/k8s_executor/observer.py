"""Observer of all pods of tools, one for each worker process: a list, then a watch of its changes, then the next list.

A watch may end early, lag or be silent without an error, so each one ends after WATCH_S and a list follows, as it does
after any error. So what is known of a pod is never older than about WATCH_S while the API server answers.
"""

import asyncio
import logging
import math
import time
from collections.abc import Iterator
from contextlib import aclosing, contextmanager

from infra.contract.errors import ContractError
from infra.k8s_executor.api import ApiRefused, KubeApi, decoded
from infra.k8s_executor.views import PodView, StatusView, WatchEvent
from infra.logging import log

WATCH_S = 45
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0


class Observed:
    """Pod of one Job, as far as it is known. `is_gone`: it was there, and was deleted.

    `deleted_at`: when its deletion was seen to begin, by the monotonic clock. On a lost node, it does not end.
    """

    def __init__(self) -> None:
        self.pod: PodView | None = None
        self.is_gone = False
        self.deleted_at = math.inf
        self._changed = asyncio.Event()

    def see(self, pod: PodView) -> None:
        """Take over a state of the pod."""
        # A Job of ours has one pod. A second one is made after the first was lost, and must not be started.
        if self.pod and pod.metadata.uid != self.pod.metadata.uid:
            return
        # A list from a cache may be older than what is known.
        if self.is_gone or (self.pod and self.pod.has_ended and not pod.has_ended):
            return
        if pod.metadata.deletion_timestamp:
            self.deleted_at = min(self.deleted_at, time.monotonic())
        self.pod = pod
        self._changed.set()

    def lose(self) -> None:
        """Note that the pod was deleted."""
        self.is_gone = True
        self._changed.set()

    async def changed(self, timeout_s: float) -> None:
        """Wait for a change since the last call, for at most `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            pass
        self._changed.clear()


class PodObserver:
    """Keeps the pods of the Jobs that this worker waits for up to date, while `run` runs."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api
        self._observed: dict[str, Observed] = {}
        self._pods: dict[str, PodView] = {}
        self._fresh_at = time.monotonic()

    @property
    def age_s(self) -> float:
        """Seconds since the last news of the API server about the pods."""
        return time.monotonic() - self._fresh_at

    @contextmanager
    def observing(self, job_uid: str) -> Iterator[Observed]:
        """Observe the pod of a Job within the context."""
        observed = self._observed.setdefault(job_uid, Observed())
        for pod in self._pods.values():
            if pod.job_uid == job_uid:
                observed.see(pod)
        try:
            yield observed
        finally:
            self._observed.pop(job_uid, None)

    async def run(self) -> None:
        """Observe until cancelled. Errors are logged, once until the API server answers again."""
        pause_s, failing = FIRST_PAUSE_S, False
        while True:
            try:
                before = set(self._pods)
                pods, version = await self._api.pods()
                self._replace(pods, before)
                if failing:
                    log("cluster.observing")
                pause_s, failing = FIRST_PAUSE_S, False
                await self._watch(version)
            except Exception as error:  # noqa: BLE001 - whatever it is, all programs of the worker need the observer
                # An expired version (410) is usual: the next list has another one.
                if not failing and not (isinstance(error, ApiRefused) and error.status == 410):
                    reason = str(error) if isinstance(error, ContractError) else repr(error)
                    log("cluster.unobserved", level=logging.WARNING, reason=reason)
                    failing = True
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def refresh(self, job_uid: str, job_name: str) -> None:
        """Ask for the pods of one Job. Raises ApiUnreachable, ApiRefused."""
        before = set(self._pods)
        pods, _ = await self._api.pods({"batch.kubernetes.io/job-name": job_name})
        found = {pod.metadata.uid: pod for pod in pods if pod.job_uid == job_uid}
        for pod in found.values():
            self._take(pod)
        self._lose(job_uid, before - found.keys())

    async def _watch(self, version: str) -> None:
        async with aclosing(self._api.watch_pods(version, WATCH_S)) as events:
            async for event in events:
                self._fresh_at = time.monotonic()
                self._apply(event)

    def _apply(self, event: WatchEvent) -> None:
        if event.type == "ERROR":
            status = decoded(event.object, StatusView)
            raise ApiRefused(status.code, status.reason or "", status.message or "")
        if event.type == "BOOKMARK":
            return
        pod = decoded(event.object, PodView)
        if event.type == "DELETED":
            self._pods.pop(pod.metadata.uid, None)
            if observed := self._observed.get(pod.job_uid):
                observed.see(pod)
                self._lose(pod.job_uid, {pod.metadata.uid})
        else:
            self._take(pod)

    def _replace(self, pods: list[PodView], before: set[str]) -> None:
        """Take over a list. Of the pods that it lacks, those have been deleted that were known before it was asked for.

        Others were made after the list, and are known from `refresh`.
        """
        self._fresh_at = time.monotonic()
        listed = {pod.metadata.uid: pod for pod in pods}
        newer = {uid: pod for uid, pod in self._pods.items() if uid not in before}
        self._pods = newer | listed
        for pod in pods:
            self._take(pod)
        for job_uid in self._observed:
            self._lose(job_uid, before - listed.keys())

    def _lose(self, job_uid: str, missing: set[str]) -> None:
        observed = self._observed.get(job_uid)
        if observed and observed.pod and observed.pod.metadata.uid in missing:
            observed.lose()

    def _take(self, pod: PodView) -> None:
        self._pods[pod.metadata.uid] = pod
        if observed := self._observed.get(pod.job_uid):
            observed.see(pod)
