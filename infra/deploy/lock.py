"""Lock of deployments: a Lease, so that two people do not deploy at once, renewed for as long as the process lives.

A holder lives if it renews the Lease; the times in the Lease are not compared, because clocks differ.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from infra.deploy.cluster import KubectlCluster, Object, VersionConflict
from infra.deploy.errors import DeployFailed
from infra.deploy.record import person

NAME = "swissbrain-deploy"
DURATION_S = 30.0
"""Time without a renewal after which another process may take the Lease."""
RENEW_S = 8.0
LOOK_S = 2.0


class Lock:
    """Lease of this process. `check` raises once another process may hold it."""

    def __init__(self, cluster: KubectlCluster, lease: Object) -> None:
        self._cluster = cluster
        self._lease = lease
        self._renewed_s = time.monotonic()
        self._taken = ""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise DeployFailed unless the Lease is certain to be this process's."""
        if self._taken:
            raise DeployFailed(f"another deployment has taken over: {self._taken}")
        if time.monotonic() - self._renewed_s > DURATION_S:
            raise DeployFailed("the API server could not be reached for too long; another deployment may have begun")

    def _renew(self) -> None:
        while not self._ended.wait(RENEW_S):
            began_s = time.monotonic()
            try:
                self._lease = self._cluster.write(_renewed(self._lease))
            except DeployFailed as exc:
                if isinstance(exc, VersionConflict):
                    self._look()
                if self._taken:
                    return
                continue  # not renewed, for all that is known
            self._renewed_s = began_s

    def _look(self) -> None:
        """Find out who holds the Lease: another process, or still this one after a renewal whose answer was lost."""
        with suppress(DeployFailed):
            found = self._cluster.find("lease", NAME)
            if found and found["spec"].get("holderIdentity") == self._lease["spec"]["holderIdentity"]:
                self._lease = found
                return
            self._taken = _holder(found) if found else "its Lease was deleted"

    def release(self) -> None:
        """Delete the Lease, unless it is another's."""
        self._ended.set()
        self._thread.join()
        if not self._taken:
            with suppress(DeployFailed):
                found = self._cluster.find("lease", NAME)
                if found and found["spec"].get("holderIdentity") == self._lease["spec"]["holderIdentity"]:
                    self._cluster.programs.read(*self._cluster.within("delete", "lease", NAME, "--ignore-not-found"))


@contextmanager
def held(cluster: KubectlCluster) -> Iterator[Lock | None]:
    """Hold the Lease; yield None in a dry run. Raises DeployFailed if another process holds it."""
    if cluster.programs.dry_run:
        yield None
        return
    lock = Lock(cluster, _acquired(cluster))
    try:
        yield lock
    finally:
        lock.release()


def _acquired(cluster: KubectlCluster) -> Object:
    """Return the Lease, made, or taken over from a holder that no longer renews it. Raises DeployFailed."""
    found = cluster.find("lease", NAME)
    fresh = _renewed({"metadata": {"name": NAME, "namespace": cluster.namespace}, "spec": {}})
    fresh["spec"] |= {"holderIdentity": f"{person()} (process {os.getpid()})", "leaseDurationSeconds": int(DURATION_S)}
    if found is not None:
        cluster.programs.say(f"# {_holder(found)} deploys, or was killed: wait whether its Lease is renewed")
        _wait_for_silence(cluster, found)
        current = cluster.find("lease", NAME)
        if current is not None:
            fresh["metadata"] |= {"resourceVersion": current["metadata"]["resourceVersion"]}
            if current["metadata"]["resourceVersion"] != found["metadata"]["resourceVersion"]:
                raise _refusal(current)
    try:
        return cluster.write(fresh)
    except VersionConflict:
        raise DeployFailed("another deployment has begun in this moment; nothing was changed") from None


def _wait_for_silence(cluster: KubectlCluster, seen: Object) -> None:
    """Return if the Lease is not renewed for its duration, or is deleted. Raises DeployFailed."""
    began_s = time.monotonic()
    while time.monotonic() < began_s + DURATION_S:
        time.sleep(LOOK_S)
        found = cluster.find("lease", NAME)
        if found is None:
            return
        if found["metadata"]["resourceVersion"] != seen["metadata"]["resourceVersion"]:
            raise _refusal(found)


def _refusal(lease: Object) -> DeployFailed:
    return DeployFailed(f"{_holder(lease)} deploys at the moment; nothing was changed. Wait until that has ended")


def _holder(lease: Object) -> str:
    return str((lease.get("spec") or {}).get("holderIdentity") or "another process")


def _renewed(lease: Object) -> Object:
    spec = {**lease["spec"], "renewTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")}
    return {**lease, "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": spec}
