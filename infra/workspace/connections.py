"""HTTP connections that end when their call is cancelled. Imports botocore, so it is imported with the first call."""

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from botocore.awsrequest import (
    AWSHTTPConnection,
    AWSHTTPConnectionPool,
    AWSHTTPSConnection,
    AWSHTTPSConnectionPool,
)
from urllib3.connection import HTTPConnection

from infra.contract.errors import FilesUnavailable
from infra.workspace.cancellation import raise_if_cancelled, register_socket

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class _Cancellable(HTTPConnection):
    def connect(self) -> None:
        super().connect()
        register_socket(self.sock)

    def request(self, *args: Any, **options: Any) -> None:
        if self.sock is not None:  # connection of an earlier call
            register_socket(self.sock)
        super().request(*args, **options)


class _Connection(_Cancellable, AWSHTTPConnection):  # type: ignore[misc]
    pass


class _TlsConnection(_Cancellable, AWSHTTPSConnection):  # type: ignore[misc]
    pass


class _Pool(AWSHTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(AWSHTTPSConnectionPool):
    ConnectionCls = _TlsConnection


def make_cancellable(client: "S3Client") -> None:
    """Make the client shut down the connections of a cancelled call, and not retry the call."""
    # botocore has no option for the class of a connection, only urllib3 has. So this changes private attributes of the
    # client. If botocore renames them, the first call of all fails, not a cancellation much later.
    private: Any = client
    private._endpoint.http_session._pool_classes_by_scheme.update(http=_Pool, https=_TlsPool)
    client.meta.events.register_first("needs-retry.s3", _stop_retries)
    client.meta.events.register_first("needs-retry.s3", _stop_redirects)


def _stop_redirects(response: tuple[Any, object] | None, **_: object) -> None:
    """Raise FilesUnavailable for a redirect, unless it names a region.

    botocore asks for the region of the bucket, is redirected again, and so on until the stack overflows.
    """
    if response is None:
        return
    status = response[0].status_code
    if status in _REDIRECTS and "x-amz-bucket-region" not in response[0].headers:
        raise FilesUnavailable(
            f"the object store answered with the redirect {status}, which is not followed; S3_ENDPOINT_URL must be the "
            "final address"
        )


def _stop_retries(response: tuple[Any, object] | None, caught_exception: Exception | None, **_: object) -> None:
    if caught_exception or (response and response[0].status_code >= HTTPStatus.BAD_REQUEST):
        raise_if_cancelled()
