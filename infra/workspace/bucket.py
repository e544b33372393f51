"""Objects in the bucket: blocking calls by key, vendor errors mapped in one place."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from threading import Lock
from typing import IO, TYPE_CHECKING, Any

from infra.contract.errors import FilesUnavailable
from infra.settings import S3Settings
from infra.workspace.client import MISSING, build_client, error_code, mapped
from infra.workspace.links import stored_type

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef, PutObjectOutputTypeDef

CHUNK_BYTES = 1024 * 1024
DELETE_BATCH = 1000

_TAKEN = {"BucketAlreadyOwnedByYou", "BucketAlreadyExists", "OperationAborted"}


@dataclass(frozen=True)
class Stored:
    """What the store said when it took an object."""

    size_bytes: int
    modified_ms: int


class Bucket:
    """The S3 bucket. All methods block and raise FilesUnavailable; those for one object also FileMissing.

    Thread-safe. boto3 is imported with the first call: a cold start that serves no file does not pay for it.
    """

    def __init__(self, settings: S3Settings) -> None:
        self._settings = settings
        self._name = settings.bucket
        self._lock = Lock()
        self._built: S3Client | None = None
        self._deletes_batches = True

    def create(self) -> None:
        """Create the bucket unless it is there; another process may do so at the same time."""
        from botocore.exceptions import ClientError

        with mapped(f"the bucket '{self._name}'", object_call=False):
            try:
                self._client.head_bucket(Bucket=self._name)
            except ClientError as error:
                if error_code(error) not in MISSING | {"NoSuchBucket"}:
                    raise
                self._create()
                self._client.get_waiter("bucket_exists").wait(
                    Bucket=self._name, WaiterConfig={"Delay": 1, "MaxAttempts": 10}
                )

    def check(self) -> None:
        """Return if the bucket is there and these keys may use it."""
        with mapped(f"the bucket '{self._name}'", object_call=False):
            self._client.head_bucket(Bucket=self._name)

    def get(self, key: str, max_bytes: int | None) -> bytes:
        """The object's bytes, at most the first `max_bytes`; never fewer because an answer was cut."""
        if max_bytes is None:
            with self.opened(key) as chunks:
                return b"".join(chunks)
        body = self._first_part(key, max(max_bytes, 1))
        if body is None:
            return b""
        data = bytearray()
        with closing(body):
            for chunk in _to_the_end(key, body):
                data += chunk
                if len(data) >= max_bytes:  # also of a store that heeds no range
                    break
        return bytes(data[:max_bytes])

    @contextmanager
    def opened(self, key: str) -> Iterator[Iterator[bytes]]:
        """The object's bytes, being fetched. They end in FilesUnavailable unless all have come."""
        with mapped(key):
            body = _body(key, self._client.get_object(Bucket=self._name, Key=key))
        with closing(body):
            yield _to_the_end(key, body)

    def put(self, key: str, body: bytes | IO[bytes], size_bytes: int) -> Stored:
        """Store an object as a whole."""
        with mapped(key):
            answer = self._client.put_object(
                Bucket=self._name, Key=key, Body=body, ContentLength=size_bytes, ContentType=stored_type(key)
            )
            return Stored(size_bytes, _answered_ms(answer))

    def copy(self, source: str, target: str) -> None:
        """Copy an object within the bucket; the bytes stay in the store."""
        with mapped(source):
            answer = self._client.copy_object(
                Bucket=self._name, Key=target, CopySource={"Bucket": self._name, "Key": source}
            )
            # The status comes before the copy has been made. What says that it has been made may be cut off.
            if not answer.get("CopyObjectResult", {}).get("ETag"):
                raise _cut(source)

    def first_keys(self, prefix: str) -> Sequence[str]:
        """The first keys that begin with `prefix`, as many as can be deleted at once."""
        with mapped(prefix, object_call=False):
            page = self._client.list_objects_v2(Bucket=self._name, Prefix=prefix, MaxKeys=DELETE_BATCH)
            if "Name" not in page:  # otherwise an answer without its body says that there are none
                raise _cut(prefix)
            return [item["Key"] for item in page.get("Contents", ())]

    def delete(self, key: str) -> None:
        """Delete an object; it need not be there."""
        with mapped(key):
            self._client.delete_object(Bucket=self._name, Key=key)

    def delete_batch(self, keys: Sequence[str]) -> Sequence[str]:
        """Delete up to DELETE_BATCH objects in one call; returns those that the store would not delete this way."""
        from botocore.exceptions import ClientError

        if not keys or not self._deletes_batches:
            return keys
        with mapped("a batch of files"):
            try:
                answer = self._client.delete_objects(
                    Bucket=self._name, Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True}
                )
            except ClientError as error:
                # A key with a control character spoils one batch; a store that cannot do it at all says 501 or 405.
                self._deletes_batches = error.response["ResponseMetadata"]["HTTPStatusCode"] not in {405, 501}
                return keys
            return [failed["Key"] for failed in answer.get("Errors", ()) if "Key" in failed]

    def link(self, key: str, expires_s: int, content_type: str, disposition: str) -> str:
        """A signed URL that fetches the object. It is a secret until it expires."""
        with mapped(key):
            wanted = {"ResponseContentType": content_type, "ResponseContentDisposition": disposition}
            return self._client.generate_presigned_url(
                "get_object", Params={"Bucket": self._name, "Key": key, **wanted}, ExpiresIn=expires_s
            )

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            if self._built is not None:
                self._built.close()
                self._built = None

    def _first_part(self, key: str, size_bytes: int) -> "StreamingBody | None":
        from botocore.exceptions import ClientError

        with mapped(key):
            try:
                wanted = f"bytes=0-{size_bytes - 1}"
                return _body(key, self._client.get_object(Bucket=self._name, Key=key, Range=wanted))
            except ClientError as error:
                if error_code(error) != "InvalidRange":
                    raise
                return None  # no range of an empty object is satisfiable

    def _create(self) -> None:
        from botocore.exceptions import ClientError

        where: dict[str, Any] = {}
        if self._settings.endpoint_url is None and self._settings.region != "us-east-1":
            where = {"CreateBucketConfiguration": {"LocationConstraint": self._settings.region}}
        try:
            self._client.create_bucket(Bucket=self._name, **where)
        except ClientError as error:
            if error_code(error) not in _TAKEN:
                raise

    @property
    def _client(self) -> "S3Client":
        with self._lock:
            if self._built is None:
                self._built = build_client(self._settings)
            return self._built


def _body(key: str, answer: "GetObjectOutputTypeDef") -> "StreamingBody":
    """The body of an answer that says where it ends: one cut within its head is else taken for an empty object."""
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    if "content-length" not in headers and headers.get("transfer-encoding", "").lower() != "chunked":
        answer["Body"].close()
        raise _cut(key)
    return answer["Body"]


def _to_the_end(key: str, body: "StreamingBody") -> Iterator[bytes]:
    """All of a body. Only the empty read after the last byte tells a whole one from one that was cut."""
    with mapped(key):
        yield from body.iter_chunks(CHUNK_BYTES)


def _cut(what: str) -> FilesUnavailable:
    return FilesUnavailable(f"the object store's answer was cut for {what}")


def _answered_ms(answer: "PutObjectOutputTypeDef") -> int:
    """The store's clock when it stored an object, which is what the listing will show but for rounding."""
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date", "")
    try:
        return int(parsedate_to_datetime(date).timestamp() * 1000)
    except ValueError:
        return int(time.time() * 1000)
