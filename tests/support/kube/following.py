"""One coroutine for each object of a resource."""

import asyncio
from collections.abc import Awaitable, Callable

from tests.support.kube.store import Key, Store, key_of


async def follow_each(store: Store, plural: str, follow: Callable[[Key, str], Awaitable[None]]) -> None:
    """Start `follow` with the key and the uid of every object, present and future, once for each. Never returns."""
    started: set[str] = set()
    async with asyncio.TaskGroup() as tasks:
        while True:
            seen = store.version
            present = {obj["metadata"]["uid"]: key_of(obj) for obj in store.all(plural)}
            for uid in present.keys() - started:
                tasks.create_task(_started(follow, present[uid], uid))
            started = {*present}
            await store.wait(lambda seen=seen: store.version != seen)  # type: ignore[misc]


async def _started(follow: Callable[[Key, str], Awaitable[None]], key: Key, uid: str) -> None:
    await follow(key, uid)
