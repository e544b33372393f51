"""Events about objects, as controllers record them."""

import uuid

from tests.support.kube.errors import Obj
from tests.support.kube.store import RESOURCES, Store


class Events:
    """Recorder of events. A repeated one counts up, as in a real cluster."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def warn(self, kind: str, about: Obj, reason: str, message: str, component: str) -> None:
        """Record a warning about an object."""
        namespace, uid = about["metadata"]["namespace"], about["metadata"]["uid"]
        now = self._store.timestamp()
        for event in self._store.all("events", namespace):
            involved = event["involvedObject"]
            if (involved["uid"], event["reason"], event["message"]) == (uid, reason, message):
                key = (namespace, event["metadata"]["name"])
                self._store.update("events", key, lambda new: new.update(count=new["count"] + 1, lastTimestamp=now))
                return
        plural = next(plural for plural, resource in RESOURCES.items() if resource.kind == kind)
        involved = {
            "kind": kind,
            "namespace": namespace,
            "name": about["metadata"]["name"],
            "uid": uid,
            "apiVersion": RESOURCES[plural].api_version,
            "resourceVersion": about["metadata"]["resourceVersion"],
        }
        event = {
            "metadata": {"name": f"{about['metadata']['name']}.{uuid.uuid4().hex[:16]}", "namespace": namespace},
            "involvedObject": involved,
            "reason": reason,
            "message": message,
            "source": {"component": component},
            "reportingComponent": component,
            "reportingInstance": "",
            "firstTimestamp": now,
            "lastTimestamp": now,
            "eventTime": None,
            "count": 1,
            "type": "Warning",
        }
        self._store.create("events", event)
