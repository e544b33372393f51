"""Deletion of many objects. Works with stores that support only a part of S3's batch deletion, or none of it."""

from collections.abc import Sequence

from infra.contract.errors import FilesUnavailable
from infra.workspace.bucket import DELETE_BATCH, Bucket
from infra.workspace.cancellation import Cancellation
from infra.workspace.threads import each


def delete_all(bucket: Bucket, keys: Sequence[str], cancellation: Cancellation) -> None:
    """Delete objects in batches, and one by one the objects that the store refuses to delete in a batch."""
    for start in range(0, len(keys), DELETE_BATCH):
        each(bucket.delete, bucket.delete_batch(keys[start : start + DELETE_BATCH]), cancellation)


def delete_below(bucket: Bucket, prefix: str, cancellation: Cancellation) -> int:
    """Delete all objects whose keys begin with `prefix`; return their number."""
    deleted = 0
    previous: Sequence[str] = ()
    # Always list the first page: a continuation token may skip objects while others are being deleted.
    while keys := [item.key for item in bucket.page(prefix)]:
        if keys == previous:
            raise FilesUnavailable(f"the object store still lists deleted objects below {prefix}")
        delete_all(bucket, keys, cancellation)
        deleted += len(keys)
        previous = keys
    return deleted
