"""Reads: lists with versions and pages, single objects, logs of pods."""

import base64
import json

from tests.support.kube.errors import KubeError, Obj, bad_request, expired, not_found, too_new
from tests.support.kube.faults import Faults
from tests.support.kube.kubelet import Kubelet
from tests.support.kube.requests import KubeRequest
from tests.support.kube.store import Key, Store


class Reader:
    """Reads of a server."""

    def __init__(self, store: Store, faults: Faults, kubelet: Kubelet) -> None:
        self._store = store
        self._faults = faults
        self._kubelet = kubelet

    def one(self, request: KubeRequest) -> Obj:
        """Return an object. Raises KubeError (404, 504)."""
        plural = request.resource.plural
        wanted = request.query.get("resourceVersion")
        self._check_reached(request.number("resourceVersion"))
        # Without a version a read is never stale; version 0 accepts any state.
        if wanted is None:
            return self._store.get(plural, *request.key)
        found = self._store.at(plural, self._any_version(int(wanted))).get(request.key)
        if found is None:
            raise not_found(plural, request.name, request.resource.group)
        return found

    def many(self, request: KubeRequest) -> Obj:
        """Return a list. Raises KubeError (400, 410, 504)."""
        version, start = self._list_from(request)
        objects = self._store.at(request.resource.plural, version)
        selector, limit = request.selector(), request.number("limit")
        keys = sorted(
            key for key, obj in objects.items() if key > start and request.namespace in {"", key[0]} and selector(obj)
        )
        meta: Obj = {"resourceVersion": str(version)}
        if limit and len(keys) > limit:
            token = json.dumps({"v": version, "start": keys[limit - 1]})
            meta["continue"] = base64.urlsafe_b64encode(token.encode()).decode()
            if not request.query.get("labelSelector") and not request.query.get("fieldSelector"):
                meta["remainingItemCount"] = len(keys) - limit
            keys = keys[:limit]
        # Objects of a list name neither their kind nor the version of their API.
        items = [
            {name: value for name, value in objects[key].items() if name not in {"apiVersion", "kind"}} for key in keys
        ]
        resource = request.resource
        return {"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": meta, "items": items}

    def _list_from(self, request: KubeRequest) -> tuple[int, Key]:
        """Return the version of a list, and the key after which it begins."""
        if token := request.query.get("continue"):
            return self._continued(token)
        version = request.number("resourceVersion")
        self._check_reached(version)
        if request.query.get("resourceVersionMatch") == "Exact" and version:
            if version < self._store.oldest:
                raise expired(version, self._store.oldest)
            return version, ("", "")
        return (self._store.version if version is None else self._any_version(version)), ("", "")

    def _continued(self, token: str) -> tuple[int, Key]:
        try:
            read = json.loads(base64.urlsafe_b64decode(token))
            version, start = int(read["v"]), (str(read["start"][0]), str(read["start"][1]))
        except (ValueError, KeyError, TypeError, IndexError):
            raise bad_request("continue key is not valid") from None
        if version < self._store.oldest:
            text = "The provided continue parameter is too old to display a consistent list result."
            raise KubeError(410, "Expired", text)
        return version, start

    def _any_version(self, at_least: int) -> int:
        """Return a version that a server may answer with: an old one, but none before `at_least`."""
        if not self._faults.stale_s:
            return self._store.version
        seen_s = self._store.now() - self._faults.stale_s
        unseen = [change.version for change in self._store.history if change.at_s > seen_s]
        return max(min(unseen, default=self._store.version + 1) - 1, at_least, self._store.oldest)

    def _check_reached(self, version: int | None) -> None:
        if version and version > self._store.version:
            raise too_new(version, self._store.version)

    def log(self, request: KubeRequest) -> bytes:
        """Return the log of a pod: of a rotated one its end only. Raises KubeError (400, 404, 500)."""
        pod = self._store.get("pods", *request.key)
        running = self._kubelet.pods.get(pod["metadata"]["uid"])
        if running is not None and running.lost:
            text = f'Get "https://10.0.0.1:10250/containerLogs/{"/".join(request.key)}": dial tcp: i/o timeout'
            raise KubeError(500, "InternalError", text)
        if running is None or running.container is None:
            waiting = (pod["status"].get("containerStatuses") or [{}])[0].get("state", {}).get("waiting", {})
            reason = waiting.get("reason", "ContainerCreating")
            name = pod["spec"]["containers"][0]["name"]
            raise bad_request(f'container "{name}" in pod "{request.name}" is waiting to start: {reason}')
        data = running.container.log.read_bytes()
        if size := self._faults.log_bytes:
            data = data[len(data) // size * size :]
        if (tail := request.number("tailLines")) is not None:
            data = b"".join(data.splitlines(keepends=True)[-tail:]) if tail else b""
        limit = request.number("limitBytes")
        return data if limit is None else data[:limit]
