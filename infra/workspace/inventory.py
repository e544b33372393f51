"""All objects of the bucket, for the sweeper: listed in the order of their keys, and deleted by key."""

from collections.abc import Sequence

from infra.contract.errors import FileMissing
from infra.workspace.bucket import Bucket, ListedObject
from infra.workspace.deletion import delete_all
from infra.workspace.threads import Threads

PREFIX = "users/"
STORE_ID = f"{PREFIX}_store"
"""Object with the id of the Redis whose records name the bucket's objects. No user id begins with an underscore."""
_MAX_ID_BYTES = 100


class Inventory:
    """Implements the port `StoredObjects`. Methods raise FilesUnavailable."""

    def __init__(self, bucket: Bucket, threads: Threads) -> None:
        self._bucket = bucket
        self._threads = threads

    async def page(self, after: str) -> Sequence[ListedObject]:
        """Return the next objects after the key `after`, in the order of keys; none at the end."""
        return await self._threads.call(lambda _: self._bucket.page(PREFIX, after))

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects, if they exist."""
        await self._threads.call(lambda cancellation: delete_all(self._bucket, keys, cancellation))

    async def read(self, key: str) -> bytes:
        """Return the bytes of an object. Raises FileMissing."""
        return await self._threads.call(lambda _: self._bucket.get(key, None))

    async def store_id(self) -> str | None:
        """Return the id of the Redis to which the bucket belongs; None if none is noted."""
        try:
            found = await self._threads.call(lambda _: self._bucket.get(STORE_ID, _MAX_ID_BYTES))
        except FileMissing:
            return None
        return found.decode(errors="replace")

    async def set_store_id(self, store_id: str) -> None:
        """Note the id of the Redis to which the bucket belongs."""
        data = store_id.encode()
        await self._threads.call(lambda _: self._bucket.put(STORE_ID, data, len(data)))
