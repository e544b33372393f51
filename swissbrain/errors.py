"""What can go wrong between a client and the API.

ClientError
├── ApiError        the API refused the request; `status`, `field` and `run_status` say more
├── Unreachable     no answer in time, or none at all, after all tries
└── ProtocolError   something answered that is not this API
"""


class ClientError(Exception):
    """Base of all errors of the client; the message is one line without secrets."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class ApiError(ClientError):
    """The API refused the request (RFC 9457).

    `status` is the HTTP status, `kind` the URN of the problem, `field` the path of the bad value, `run_status` that
    of a run which refused a transition; the last two are None where they say nothing. `tries` is how often it was
    asked; what a lost answer has done may be what refuses the next.
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
    """The API did not answer. What was asked may have been done all the same; it is safe to ask again."""


class ProtocolError(ClientError):
    """The answer is not one that this API gives."""
