"""Writes: creations, replacements, patches, deletions, evictions."""

import copy
from typing import Any

from tests.support.kube import pod_security, validation
from tests.support.kube.deletion import DeleteOptions, delete
from tests.support.kube.errors import Obj, already_exists, bad_request, conflict, not_found
from tests.support.kube.patches import patched
from tests.support.kube.requests import KubeRequest
from tests.support.kube.store import Store, key_of

SERVER_OWNED = ("uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds")


class Writer:
    """Writes of a server."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def create(self, request: KubeRequest, body: Any) -> Obj:
        """Create an object. Raises KubeError (400, 404, 409, 422)."""
        plural = request.resource.plural
        if request.sub == "eviction":
            return self._evict(request, body)
        if request.resource.namespaced and self._store.find("namespaces", "", request.namespace) is None:
            raise not_found("namespaces", request.namespace)
        obj = validation.check_new(plural, request.namespace, body)
        obj = validation.complete(self._store, plural, obj)
        if is_dry(request, None):
            if self._store.find(plural, request.namespace, obj["metadata"]["name"]):
                raise already_exists(plural, obj["metadata"]["name"], request.resource.group)
            return obj
        return self._store.create(plural, obj)

    def replace(self, request: KubeRequest, body: Any) -> Obj:
        """Replace an object. Raises KubeError (400, 404, 409, 422)."""
        if not isinstance(body, dict) or not isinstance(body.get("metadata"), dict):
            raise bad_request("the object provided is unrecognized (must be of type object)")
        return self._write(request, body, body)

    def patch(self, request: KubeRequest, body: Any, content_type: str) -> Obj:
        """Merge a patch into an object. Raises KubeError (400, 404, 409, 415, 422)."""
        before = self._store.get(request.resource.plural, *request.key)
        return self._write(request, patched(before, body, content_type), body if isinstance(body, dict) else {})

    def _write(self, request: KubeRequest, after: Obj, sent: Obj) -> Obj:
        resource = request.resource
        plural, before = resource.plural, self._store.get(resource.plural, *request.key)
        given = sent.get("metadata") or {}
        if given.get("resourceVersion", before["metadata"]["resourceVersion"]) != before["metadata"]["resourceVersion"]:
            why = "the object has been modified; please apply your changes to the latest version and try again"
            raise conflict(plural, request.name, why, resource.group)
        if given.get("uid", before["metadata"]["uid"]) != before["metadata"]["uid"]:
            why = f"Precondition failed: UID in precondition: {given['uid']}"
            raise conflict(plural, request.name, why, resource.group)
        if key_of({"metadata": {**before["metadata"], **after["metadata"]}}) != request.key:
            raise bad_request("the name or the namespace of the object does not match the one on the URL")
        kept = before if request.sub == "status" else after
        changed = {**kept, "metadata": {**after["metadata"]}}
        changed["status"] = after.get("status", {}) if request.sub == "status" else before.get("status", {})
        for name in (*SERVER_OWNED, "name", "namespace", "resourceVersion"):
            changed["metadata"].pop(name, None)
            if name in before["metadata"]:
                changed["metadata"][name] = before["metadata"][name]
        changed |= {"apiVersion": resource.api_version, "kind": resource.kind}
        if "status" not in before and not changed["status"]:
            del changed["status"]
        validation.check_update(plural, before, changed)
        if is_dry(request, None):
            return changed

        def put(obj: Obj) -> None:
            obj.clear()
            obj.update(copy.deepcopy(changed))

        return self._store.update(plural, request.key, put)

    def delete(self, request: KubeRequest, body: Any) -> Obj:
        """Delete an object, or begin to. Raises KubeError (400, 404, 409)."""
        plural = request.resource.plural
        options = DeleteOptions.parse(body, request.query)
        if is_dry(request, body):
            return self._store.get(plural, *request.key)
        return delete(self._store, plural, request.key, options)

    def warnings(self, request: KubeRequest, body: Any) -> list[str]:
        """Return the warnings that come with the answer to a request that was carried out."""
        if request.resource.plural != "jobs":
            return []
        if request.verb == "create":
            meta = {"namespace": request.namespace, "name": "pod"}
            found = pod_security.refusal(self._store, {"metadata": meta, "spec": body["spec"]["template"]["spec"]})
            return [found.replace("violates", "would violate")] if found else []
        if request.verb == "delete" and DeleteOptions.parse(body, request.query).policy is None:
            return ["child pods are preserved by default when jobs are deleted; set propagationPolicy=Background"]
        return []

    def delete_many(self, request: KubeRequest, body: Any) -> Obj:
        """Delete the objects that match the selectors; return their list."""
        options, selector = DeleteOptions.parse(body, request.query), request.selector()
        plural = request.resource.plural
        found = [obj for obj in self._store.all(plural, request.namespace) if selector(obj)]
        for obj in found:
            if self._store.find(plural, *key_of(obj)):
                delete(self._store, plural, key_of(obj), options)
        resource = request.resource
        meta = {"resourceVersion": str(self._store.version)}
        return {"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": meta, "items": found}

    def _evict(self, request: KubeRequest, body: Any) -> Obj:
        disrupt(self._store, request, "EvictionByEvictionAPI", "Eviction API: evicting")
        options = body.get("deleteOptions") if isinstance(body, dict) else None
        delete(self._store, "pods", request.key, DeleteOptions.parse(options, {}))
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


def is_dry(request: KubeRequest, body: Any) -> bool:
    """Return whether a request must change nothing."""
    return bool(request.query.get("dryRun") or (isinstance(body, dict) and body.get("dryRun")))


def disrupt(store: Store, request: "KubeRequest | tuple[str, str]", reason: str, message: str) -> None:
    """Set the condition DisruptionTarget of a pod."""
    key = request if isinstance(request, tuple) else request.key
    condition = {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}

    def change(pod: Obj) -> None:
        others = [found for found in pod["status"].get("conditions", []) if found["type"] != "DisruptionTarget"]
        pod["status"]["conditions"] = [*others, condition]

    store.update("pods", key, change)
