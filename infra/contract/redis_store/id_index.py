"""Reads of indexes of ids, which one damaged member must not make unreadable."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from infra.contract.errors import StoreRejected
from infra.contract.redis_store import scripts
from infra.contract.redis_store.reader import is_damage

T = TypeVar("T")


async def read_index(caller: scripts.ScriptCaller, index: str, read: Callable[[], Awaitable[T]]) -> T:
    """Return what `read` returns; if a member of the index is damaged, remove such members and read again."""
    try:
        return await read()
    except StoreRejected as exc:
        # The script is loaded here, because hardly any process needs it.
        if not is_damage(exc) or not await caller.call(scripts.load("tidy"), named_keys={"index": index}):
            raise
        return await read()
