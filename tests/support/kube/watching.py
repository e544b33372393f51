"""Watches: changes after a version as a stream, with bookmarks, a timeout, and all the ways in which a watch ends."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

from tests.support.kube.errors import Obj, expired
from tests.support.kube.faults import Faults
from tests.support.kube.selectors import Selector
from tests.support.kube.store import RESOURCES, Change, Store

FOREVER_S = 1800.0


class WatchCut(Exception):
    """Watch that ends with a closed connection in the middle of the answer."""


@dataclass(frozen=True)
class WatchRequest:
    """Request of a watch. `version` None or 0 begins with all present objects."""

    plural: str
    namespace: str
    selector: Selector
    version: int | None
    timeout_s: float
    bookmarks: bool


class Watches:
    """Watches of a server. `bookmark_s` is the interval of bookmarks, a minute in reality."""

    def __init__(self, store: Store, faults: Faults) -> None:
        self.bookmark_s = 1.0
        self.open = 0
        self.closing = False
        self.generation = 0
        self._store = store
        self._faults = faults

    def cut_all(self) -> None:
        """Close the connections of all open watches."""
        self.generation += 1
        self._store.wake()

    async def stream(self, request: WatchRequest) -> AsyncIterator[bytes]:
        """Yield the lines of a watch. Raises WatchCut."""
        self.open += 1
        try:
            async for line in self._stream(request):
                yield line
        finally:
            self.open -= 1

    async def _stream(self, request: WatchRequest) -> AsyncIterator[bytes]:
        store, faults, generation = self._store, self._faults, self.generation
        began_s, last = store.now(), request.version or 0
        ends_s = began_s + request.timeout_s
        cut_s = began_s + faults.rng.uniform(*faults.watch_s) if faults.watch_s else float("inf")
        gone = faults.rng.random() < faults.gone_chance
        bookmark_s = began_s + self.bookmark_s
        if not last:
            last = store.version
            for obj in store.all(request.plural, request.namespace):
                if request.selector(obj):
                    yield _line("ADDED", obj)
        while not self.closing:
            if last < store.oldest or (gone and store.now() >= min(cut_s, ends_s)):
                yield _line("ERROR", expired(last, store.version).status())
                return
            changes = self._ready(last)
            for line in filter(None, (_seen(change, request) for change in changes)):
                yield line
            last, now = changes[-1].version if changes else last, store.now()
            if generation != self.generation or now >= cut_s:
                raise WatchCut
            if now >= min(bookmark_s, ends_s):
                bookmark_s = now + self.bookmark_s
                yield _bookmark(request.plural, last) if request.bookmarks else b""
            if now >= ends_s:
                return
            await self._sleep(last, generation, min(ends_s, cut_s, bookmark_s))

    def _ready(self, last: int) -> list[Change]:
        """Return the changes after a version that this server has seen, if it lags."""
        until_s = self._store.now() - self._faults.watch_lag_s
        changes: list[Change] = []
        for change in reversed(self._store.history):
            if change.version <= last:
                break
            if change.at_s <= until_s or not self._faults.watch_lag_s:
                changes.append(change)
        return changes[::-1]

    async def _sleep(self, last: int, generation: int, until_s: float) -> None:
        lag_s = self._faults.watch_lag_s
        if lag_s and self._store.version != last:
            until_s = min(until_s, self._store.now() + min(lag_s, 0.05))
            await self._store.wait(lambda: self.closing or generation != self.generation, until_s)
            return
        seen = self._store.version
        await self._store.wait(
            lambda: self.closing or generation != self.generation or self._store.version != seen, until_s
        )


def _seen(change: Change, request: WatchRequest) -> bytes | None:
    """Return the event of a change as this watch sees it: objects come and go with what the selector says of them."""
    if change.plural != request.plural:
        return None
    if request.namespace and change.after["metadata"].get("namespace") != request.namespace:
        return None
    was = change.before is not None and request.selector(change.before)
    matches = change.type != "DELETED" and request.selector(change.after)
    if not was and not matches:
        return None
    kind = "MODIFIED" if was and matches else "ADDED" if matches else "DELETED"
    return _line(kind, change.after)


def _line(kind: str, obj: Obj) -> bytes:
    return json.dumps({"type": kind, "object": obj}).encode() + b"\n"


def _bookmark(plural: str, version: int) -> bytes:
    resource = RESOURCES[plural]
    empty = {"spec": {"template": {"spec": {"containers": None}}}} if plural == "jobs" else {"spec": {}}
    meta = {"resourceVersion": str(version), "creationTimestamp": None}
    return _line(
        "BOOKMARK", {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": meta, **empty, "status": {}}
    )
