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

from infra.workspace.cancellation import raise_if_cancelled, register_socket

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


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


def _stop_retries(response: tuple[Any, object] | None, caught_exception: Exception | None, **_: object) -> None:
    if caught_exception or (response and response[0].status_code >= HTTPStatus.BAD_REQUEST):
        raise_if_cancelled()
