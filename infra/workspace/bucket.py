"""Objects in the bucket: blocking calls by key."""

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from email.utils import parsedate_to_datetime
from threading import Lock
from typing import IO, TYPE_CHECKING, Any

import msgspec

from infra.contract.content_types import content_type
from infra.contract.errors import FilesUnavailable
from infra.settings import S3Settings
from infra.workspace.client import MISSING, TrafficObserver, build_client, error_code, translated_errors
from infra.workspace.signed_urls import UrlSigner

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef, PutObjectOutputTypeDef

CHUNK_BYTES = 1024 * 1024
DELETE_BATCH = 1000

_BUCKET_EXISTS = {"BucketAlreadyOwnedByYou", "BucketAlreadyExists", "OperationAborted"}


class StoredObject(msgspec.Struct, frozen=True):
    """Size and time of an object that was just stored."""

    size_bytes: int
    modified_ms: int


class ListedObject(msgspec.Struct, frozen=True):
    """Object in a listing; `modified_ms` by the clock of the store."""

    key: str
    size_bytes: int
    modified_ms: int


class Bucket:
    """The S3 bucket. All methods block and raise FilesUnavailable; methods for one object also FileMissing.

    Thread-safe. boto3 is imported with the first call, so that a cold start without such a call does not load it; links
    do not need it.
    """

    def __init__(self, settings: S3Settings, observer: TrafficObserver | None = None) -> None:
        self._settings = settings
        self._observer = observer
        self._name = settings.bucket
        self._signer = UrlSigner(settings)
        self._lock = Lock()
        self._cached_client: S3Client | None = None
        self._deletes_batches = True
        # No user id begins with an underscore. Other processes check at the same time, each with its own object.
        self._check_key = f"users/_check/{secrets.token_hex(8)}"

    def connect(self) -> None:
        """Create the client."""
        _ = self._client

    def create(self) -> None:
        """Create the bucket if it is missing. Other processes may call this at the same time."""
        from botocore.exceptions import ClientError

        with translated_errors(f"the bucket '{self._name}'", object_call=False):
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
        """Store, read and delete a small object.

        Raises FilesUnavailable if these credentials may not do so, or if the address is not that of a store: other
        servers answer 200 to everything.
        """
        with translated_errors(f"the bucket '{self._name}'", object_call=False):
            self._client.head_bucket(Bucket=self._name)
            self._client.put_object(Bucket=self._name, Key=self._check_key, Body=b"check", ContentLength=5)
            stored = self._client.get_object(Bucket=self._name, Key=self._check_key)["Body"].read(6)
            self._client.delete_object(Bucket=self._name, Key=self._check_key)
        if stored != b"check":
            reason = "what was stored is not what was read; does S3_ENDPOINT_URL lead to an S3 server?"
            raise FilesUnavailable(f"the bucket '{self._name}': {reason}")

    def get(self, key: str, max_bytes: int | None, offset: int = 0) -> bytes:
        """Return all bytes of an object, or at most `max_bytes` from `offset` on.

        There are never fewer because a response was truncated.
        """
        if max_bytes is None:
            with self.open(key) as chunks:
                return b"".join(chunks)
        response = self._get_range(key, offset, max(max_bytes, 1))
        if response is None:
            return b""
        # A store may ignore the range.
        before = 0 if "ContentRange" in response else offset
        data = bytearray()
        with closing(_body(key, response)) as body:
            for chunk in _read_to_end(key, body):
                data += chunk[before:]
                before = max(0, before - len(chunk))
                if len(data) >= max_bytes:
                    break
        return bytes(data[:max_bytes])

    @contextmanager
    def open(self, key: str) -> Iterator[Iterator[bytes]]:
        """Return an iterator over the object's bytes. It raises FilesUnavailable if the response is truncated."""
        with translated_errors(key):
            body = _body(key, self._client.get_object(Bucket=self._name, Key=key))
        with closing(body):
            yield _read_to_end(key, body)

    def put(self, key: str, body: bytes | IO[bytes], size_bytes: int) -> StoredObject:
        """Store an object."""
        with translated_errors(key):
            response = self._client.put_object(
                Bucket=self._name, Key=key, Body=body, ContentLength=size_bytes, ContentType=content_type(key)
            )
            return StoredObject(size_bytes, _stored_ms(response))

    def copy(self, source: str, target: str) -> None:
        """Copy an object inside the store."""
        with translated_errors(source):
            response = self._client.copy_object(
                Bucket=self._name, Key=target, CopySource={"Bucket": self._name, "Key": source}
            )
            # The store sends the status before it copies. Only the ETag in the body confirms the copy, and the body
            # may be truncated.
            if not response.get("CopyObjectResult", {}).get("ETag"):
                raise _truncated(source)

    def page(self, prefix: str, after: str = "") -> Sequence[ListedObject]:
        """Return the next objects after the key `after` in the order of keys, at most DELETE_BATCH."""
        with translated_errors(prefix, object_call=False):
            found = (
                self._client.list_objects_v2(Bucket=self._name, Prefix=prefix, MaxKeys=DELETE_BATCH, StartAfter=after)
                if after
                else self._client.list_objects_v2(Bucket=self._name, Prefix=prefix, MaxKeys=DELETE_BATCH)
            )
            # A response without body is parsed as an empty listing; a complete one contains the bucket's name.
            if "Name" not in found:
                raise _truncated(prefix)
            return [
                ListedObject(item["Key"], item["Size"], int(item["LastModified"].timestamp() * 1000))
                for item in found.get("Contents", ())
            ]

    def delete(self, key: str) -> None:
        """Delete an object, if it exists."""
        with translated_errors(key):
            self._client.delete_object(Bucket=self._name, Key=key)

    def delete_batch(self, keys: Sequence[str]) -> Sequence[str]:
        """Delete up to DELETE_BATCH objects in one call; return the keys that the store did not delete."""
        from botocore.exceptions import ClientError

        if not keys or not self._deletes_batches:
            return keys
        with translated_errors("a batch of files"):
            try:
                response = self._client.delete_objects(
                    Bucket=self._name, Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True}
                )
            except ClientError as error:
                # A key with a control character makes one batch fail. A store without batch deletion returns 501 or
                # 405: do not try again.
                self._deletes_batches = error.response["ResponseMetadata"]["HTTPStatusCode"] not in {405, 501}
                return keys
            return [failed["Key"] for failed in response.get("Errors", ()) if "Key" in failed]

    def link(self, key: str, expires_s: int, content_type: str, disposition: str) -> str:
        """Return a signed URL of the object. It is a secret until it expires."""
        query = {"response-content-type": content_type, "response-content-disposition": disposition}
        return self._signer.sign("GET", key, expires_s, query=query)

    def link_for_get(self, key: str, expires_s: int) -> str:
        """Return a signed URL of the object for a program, which does not look at headers. It is a secret."""
        return self._signer.sign("GET", key, expires_s)

    def link_for_put(self, key: str, expires_s: int, headers: Mapping[str, str]) -> str:
        """Return a signed URL to store an object with exactly these headers. It is a secret."""
        return self._signer.sign("PUT", key, expires_s, headers=headers)

    def head(self, key: str) -> tuple[int, str | None]:
        """Return the object's size and the SHA-256 that the store keeps with it, as in its header; None if none."""
        with translated_errors(key):
            found = self._client.head_object(Bucket=self._name, Key=key, ChecksumMode="ENABLED")
            return found["ContentLength"], found.get("ChecksumSHA256")

    def stat(self, key: str) -> StoredObject:
        """Return the object's size and the time when it was stored."""
        with translated_errors(key):
            found = self._client.head_object(Bucket=self._name, Key=key)
            return StoredObject(found["ContentLength"], int(found["LastModified"].timestamp() * 1000))

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            if self._cached_client is not None:
                self._cached_client.close()
                self._cached_client = None

    def _get_range(self, key: str, offset: int, size_bytes: int) -> "GetObjectOutputTypeDef | None":
        from botocore.exceptions import ClientError

        with translated_errors(key):
            try:
                byte_range = f"bytes={offset}-{offset + size_bytes - 1}"
                return self._client.get_object(Bucket=self._name, Key=key, Range=byte_range)
            except ClientError as error:
                if error_code(error) != "InvalidRange":
                    raise
                return None  # the object is empty, or ends before the offset

    def _create(self) -> None:
        from botocore.exceptions import ClientError

        options: dict[str, Any] = {}
        if self._settings.endpoint_url is None and self._settings.region != "us-east-1":
            options = {"CreateBucketConfiguration": {"LocationConstraint": self._settings.region}}
        try:
            self._client.create_bucket(Bucket=self._name, **options)
        except ClientError as error:
            if error_code(error) not in _BUCKET_EXISTS:
                raise

    @property
    def _client(self) -> "S3Client":
        with self._lock:
            if self._cached_client is None:
                self._cached_client = build_client(self._settings, self._observer)
            return self._cached_client


def _body(key: str, response: "GetObjectOutputTypeDef") -> "StreamingBody":
    headers = response["ResponseMetadata"]["HTTPHeaders"]
    # A response that is truncated inside its headers has no length and would be read as an empty object.
    if "content-length" not in headers and headers.get("transfer-encoding", "").lower() != "chunked":
        response["Body"].close()
        raise _truncated(key)
    return response["Body"]


def _read_to_end(key: str, body: "StreamingBody") -> Iterator[bytes]:
    with translated_errors(key):
        # Reads until an empty chunk: only there botocore compares the number of bytes with the length.
        yield from body.iter_chunks(CHUNK_BYTES)


def _truncated(what: str) -> FilesUnavailable:
    return FilesUnavailable(f"the response of the object store was truncated for {what}")


def _stored_ms(response: "PutObjectOutputTypeDef") -> int:
    """Return the store's time of the response: up to rounding, the time that a listing will show."""
    date = response["ResponseMetadata"]["HTTPHeaders"].get("date", "")
    try:
        return int(parsedate_to_datetime(date).timestamp() * 1000)
    except ValueError:
        return int(time.time() * 1000)
