"""Deleting many objects, whatever the store supports."""

from collections.abc import Sequence

from infra.contract.errors import FilesUnavailable
from infra.workspace.bucket import DELETE_BATCH, Bucket
from infra.workspace.cancellation import Stop
from infra.workspace.threads import each


def delete_all(bucket: Bucket, keys: Sequence[str], stop: Stop) -> None:
    """Delete objects in batches, and singly those that the store refuses to delete in a batch."""
    for start in range(0, len(keys), DELETE_BATCH):
        each(bucket.delete, bucket.delete_batch(keys[start : start + DELETE_BATCH]), stop)


def delete_below(bucket: Bucket, prefix: str, stop: Stop) -> int:
    """Delete all objects whose keys begin with `prefix` and return how many they were.

    The first page is asked for again and again: a page mark may skip objects while others are being deleted.
    """
    deleted = 0
    before: Sequence[str] = ()
    while keys := bucket.first_keys(prefix):
        if keys == before:
            raise FilesUnavailable(f"the object store still lists deleted files below {prefix}")
        delete_all(bucket, keys, stop)
        deleted += len(keys)
        before = keys
    return deleted
