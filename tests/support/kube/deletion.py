"""Deletion of objects: propagation to dependents, grace periods, preconditions, and the garbage collector."""

from dataclasses import dataclass
from typing import Any

from tests.support.kube.errors import KubeError, Obj, bad_request
from tests.support.kube.store import RESOURCES, Key, Store, key_of

FOREGROUND = "foregroundDeletion"
FINISHED = {"Succeeded", "Failed"}
OWNED = ("jobs", "leases", "pods", "deployments", "replicasets", "statefulsets")
"""Resources that have owners, or are owners."""


@dataclass(frozen=True)
class DeleteOptions:
    """Options of a deletion. Without `policy`, a Job leaves its pods behind: the default of batch/v1."""

    policy: str | None = None
    grace_s: int | None = None
    uid: str | None = None
    version: str | None = None

    @staticmethod
    def parse(body: Any, query: dict[str, str]) -> "DeleteOptions":
        """Read the options from the body, then the query. Raises KubeError (400)."""
        given = body if isinstance(body, dict) else {}
        conditions = given.get("preconditions") or {}
        policy = given.get("propagationPolicy") or query.get("propagationPolicy")
        if policy not in {None, "Orphan", "Background", "Foreground"}:
            raise bad_request(f'invalid propagationPolicy: "{policy}"')
        grace = given.get("gracePeriodSeconds", query.get("gracePeriodSeconds"))
        return DeleteOptions(
            policy, None if grace is None else int(grace), conditions.get("uid"), conditions.get("resourceVersion")
        )


def delete(store: Store, plural: str, key: Key, options: DeleteOptions) -> Obj:
    """Delete an object or begin to; return the body of the answer. Raises KubeError (404, 409)."""
    obj = store.get(plural, *key)
    meta = obj["metadata"]
    _check(plural, obj, options)
    if plural == "pods":
        return _delete_pod(store, obj, options)
    policy = options.policy or ("Orphan" if plural == "jobs" else "Background")
    if policy == "Orphan":
        _orphan(store, meta["uid"], key[0])
    if policy == "Foreground" and dependents(store, meta["uid"], key[0]):
        return store.update(plural, key, lambda new: _mark(store, new, FOREGROUND))
    if meta.get("finalizers"):
        return store.update(plural, key, lambda new: _mark(store, new))
    store.remove(plural, key)
    group = RESOURCES[plural].group
    details = {"name": key[1], "kind": plural, "uid": meta["uid"], **({"group": group} if group else {})}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


def _check(plural: str, obj: Obj, options: DeleteOptions) -> None:
    meta = obj["metadata"]
    for name, wanted, found in (
        ("UID", options.uid, meta["uid"]),
        ("ResourceVersion", options.version, meta["resourceVersion"]),
    ):
        if wanted is not None and wanted != found:
            why = f"Precondition failed: {name} in precondition: {wanted}, {name} in object meta: {found}"
            raise KubeError(409, "Conflict", why, {"name": meta["name"], "kind": plural})


def _mark(store: Store, new: Obj, *finalizers: str) -> None:
    new["metadata"].setdefault("deletionTimestamp", store.timestamp())
    new["metadata"]["finalizers"] = sorted({*new["metadata"].get("finalizers", []), *finalizers})


def _delete_pod(store: Store, pod: Obj, options: DeleteOptions) -> Obj:
    grace_s = options.grace_s if options.grace_s is not None else pod["spec"]["terminationGracePeriodSeconds"]
    if pod["status"]["phase"] in FINISHED or not pod["spec"].get("nodeName"):
        grace_s = 0  # nothing of it runs

    def mark(new: Obj) -> None:
        meta = new["metadata"]
        meta.setdefault("deletionTimestamp", store.timestamp())
        meta["deletionGracePeriodSeconds"] = min(grace_s, meta.get("deletionGracePeriodSeconds", grace_s))

    return store.update("pods", key_of(pod), mark)


def dependents(store: Store, uid: str, namespace: str) -> list[tuple[str, Obj]]:
    """Return the objects of a namespace that this one owns, each with the plural of its kind."""
    return [
        (plural, obj)
        for plural in OWNED
        for obj in store.all(plural, namespace)
        if any(owner["uid"] == uid for owner in obj["metadata"].get("ownerReferences", []))
    ]


def _orphan(store: Store, uid: str, namespace: str) -> None:
    for plural, obj in dependents(store, uid, namespace):
        store.update(plural, key_of(obj), lambda new: new["metadata"].pop("ownerReferences"))


async def collect_garbage(store: Store, delay_s: float) -> None:
    """Delete the objects whose owners do not exist, for ever. An owner of another namespace does not exist either."""
    seen = 0
    while True:
        await store.wait(lambda seen=seen: store.version != seen)  # type: ignore[misc]
        await store.wait(lambda: False, store.now() + delay_s)
        seen = store.version
        for plural in OWNED:
            for obj in store.all(plural):
                _collect(store, plural, obj)


def _collect(store: Store, plural: str, obj: Obj) -> None:
    meta = obj["metadata"]
    owners = meta.get("ownerReferences", [])
    namespace = meta.get("namespace", "")
    present = [uid for owner in owners if (uid := owner["uid"]) and _exists(store, namespace, uid)]
    if owners and not present and not meta.get("deletionTimestamp"):
        delete(store, plural, key_of(obj), DeleteOptions("Background"))
    if FOREGROUND in meta.get("finalizers", []):
        left = dependents(store, meta["uid"], namespace)
        for kind, dependent in left:
            if not dependent["metadata"].get("deletionTimestamp"):
                delete(store, kind, key_of(dependent), DeleteOptions("Background"))
        if not left:
            store.update(plural, key_of(obj), lambda new: new["metadata"]["finalizers"].remove(FOREGROUND))


def _exists(store: Store, namespace: str, uid: str) -> bool:
    return any(store.by_uid(plural, namespace, uid) for plural in OWNED)
