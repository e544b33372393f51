"""Connections that end with the call they serve. Brings botocore, so it is imported with the first call."""

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from botocore.awsrequest import (
    AWSHTTPConnection,
    AWSHTTPConnectionPool,
    AWSHTTPSConnection,
    AWSHTTPSConnectionPool,
)
from urllib3.connection import HTTPConnection

from infra.workspace.cancellation import look, uses

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


class _Governed(HTTPConnection):
    def connect(self) -> None:
        super().connect()
        uses(self.sock)

    def request(self, *args: Any, **options: Any) -> None:
        if self.sock is not None:  # kept from an earlier call
            uses(self.sock)
        super().request(*args, **options)


class _Connection(_Governed, AWSHTTPConnection):  # type: ignore[misc]
    pass


class _TlsConnection(_Governed, AWSHTTPSConnection):  # type: ignore[misc]
    pass


class _Pool(AWSHTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(AWSHTTPSConnectionPool):
    ConnectionCls = _TlsConnection


def end_with_calls(client: "S3Client") -> None:
    """Let the client's connections be shut down, and its calls not be tried again, once their Stop is set.

    botocore has no way to choose the class of a connection, which urllib3 has. So this reaches into the client; should
    that no longer be there, the first call fails at once, rather than a cancelled one much later.
    """
    inside: Any = client
    inside._endpoint.http_session._pool_classes_by_scheme.update(http=_Pool, https=_TlsPool)
    client.meta.events.register_first("needs-retry.s3", _give_up)


def _give_up(response: tuple[Any, object] | None, caught_exception: Exception | None, **_: object) -> None:
    if caught_exception or (response and response[0].status_code >= HTTPStatus.BAD_REQUEST):
        look()
