"""S3 client, and the only place that translates its errors to the domain's."""

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol

from infra.contract.errors import FileMissing, FilesUnavailable
from infra.settings import S3Settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CONNECT_TIMEOUT_S = 3
READ_TIMEOUT_S = 20
ATTEMPTS = 3
CONNECTIONS = 128

MISSING = frozenset({"NoSuchKey", "NotFound", "404"})


class TrafficObserver(Protocol):
    """Observer of the requests of a client. Several threads call it, and they wait for it."""

    def sent(self, size_bytes: int) -> None:
        """Note a request to store an object, with the size of the object."""
        ...

    def answered(self, operation: str, status: int | None, received_bytes: int) -> None:
        """Note the end of a try. `status`: of HTTP, None without an answer; `received_bytes`: size of a read object."""
        ...


def build_client(settings: S3Settings, observer: TrafficObserver | None = None) -> "S3Client":
    """Return a client with limited timeouts and retries. Threads can share it."""
    from boto3.session import Session
    from botocore.config import Config
    from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES
    from botocore.session import Session as CoreSession

    from infra.workspace.connections import make_cancellable

    # A new session, because boto3's default session is shared and not thread-safe. Checksums only if the call requires
    # them: Exoscale and other stores refuse the trailing checksums that boto3 sends by default since 1.36.
    # Of the variables `AWS_…` and the files below `~/.aws`, which may be for another store, AWS_CA_BUNDLE alone counts:
    # a profile that does not exist, for example, would be an error.
    preset = {
        name: (None, None, default, cast)
        for name, (_, _, default, cast) in BOTOCORE_DEFAUT_SESSION_VARIABLES.items()
        if name != "ca_bundle"
    }
    client = Session(
        botocore_session=CoreSession(session_vars=preset),
        aws_access_key_id=settings.access_key,
        aws_secret_access_key=settings.secret_key,
        region_name=settings.region,
    ).client(
        "s3",
        endpoint_url=settings.endpoint_url,
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": "path", "us_east_1_regional_endpoint": "regional"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=READ_TIMEOUT_S,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
            max_pool_connections=CONNECTIONS,
            tcp_keepalive=True,
        ),
    )
    make_cancellable(client)
    if observer:
        _observe(client, observer)
    return client


def _observe(client: "S3Client", observer: TrafficObserver) -> None:
    """Report each try of a request. The sizes are those that the headers declare."""

    def before_send(request: Any, event_name: str, **_: object) -> None:
        if event_name.endswith(".PutObject"):
            observer.sent(int(request.headers.get("Content-Length") or 0))

    def received(response_dict: dict[str, Any] | None, event_name: str, **_: object) -> None:
        operation = event_name.rpartition(".")[2]
        if response_dict is None:
            observer.answered(operation, None, 0)
            return
        reads = operation == "GetObject" and response_dict["status_code"] < HTTPStatus.BAD_REQUEST
        size = int(response_dict["headers"].get("content-length") or 0) if reads else 0
        observer.answered(operation, response_dict["status_code"], size)

    client.meta.events.register("before-send.s3", before_send)
    client.meta.events.register("response-received.s3", received)


@contextmanager
def translated_errors(what: str, *, object_call: bool = True) -> Iterator[None]:
    """Raise FilesUnavailable for errors of boto3, and FileMissing if an object call (not a bucket call) finds nothing.

    `what` names the object or bucket in the message.
    """
    # Messages contain only codes and type names, because texts of the libraries may contain signatures or URLs.
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ClientError as error:
        code = error_code(error)
        if object_call and code in MISSING:
            raise FileMissing(f"there is no file '{what.rsplit('/files/', 1)[-1]}'") from error
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", "no status")
        raise FilesUnavailable(f"the object store answered {code} ({status}) for {what}") from error
    except (BotoCoreError, HTTPError, ResponseParserError, ValueError) as error:  # the last two: malformed responses
        raise FilesUnavailable(f"the object store failed with {type(error).__name__} for {what}") from error


def error_code(error: Any) -> str:
    """Return the code of a ClientError, such as `NoSuchKey`. Responses to HEAD have only the status, such as `404`."""
    return str(error.response.get("Error", {}).get("Code", "an error"))
