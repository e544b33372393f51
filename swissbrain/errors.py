"""Errors of the client.

ClientError     also raised directly, for arguments that cannot be sent
├── ApiError        the API refused the request; `status`, `field` and `run_status` give the details
├── Unreachable     no response in time, or no connection, after all attempts
└── ProtocolError   the response does not come from this API
"""


class ClientError(Exception):
    """Base of all errors of the client; the message is one line and holds no secrets."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class ApiError(ClientError):
    """Refusal of a request by the API (RFC 9457).

    `status` is the HTTP status, `kind` the URN of the problem, `field` the path of the invalid value, `run_status` the
    status of a run that refused a transition; the last two are None where they do not apply. `tries` is the number of
    times the request was sent. With more than one, an earlier try whose response was lost may be the reason for the
    refusal.
    """

    def __init__(
        self, status: int, detail: str, *, kind: str = "", field: str | None = None, run_status: str | None = None
    ) -> None:
        super().__init__(f"{detail} ({field})" if field else detail)
        self.status = status
        self.detail = detail
        self.kind = kind
        self.field = field
        self.run_status = run_status
        self.tries = 1


class Unreachable(ClientError):
    """Missing response of the API. The request may have taken effect; sending it again is safe."""


class ProtocolError(ClientError):
    """Response that this API does not give."""
