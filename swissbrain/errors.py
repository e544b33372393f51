"""Errors of the client.

ClientError     also raised directly, for arguments that cannot be sent
├── ApiError        the API refused the request; `status`, `field` and `run_status` give the details
├── Unreachable     no response in time, or no connection, after all attempts
├── ProtocolError   the response does not come from this API
├── RunFailed       a run that was waited for did not succeed; `run` is the run
└── WaitTimeout     a run that was waited for has not ended; `run` is the run
"""

from collections.abc import Sequence

from swissbrain.models import Run, RunError


class ClientError(Exception):
    """Base of all errors of the client; the message is one line and holds no secrets."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class ApiError(ClientError):
    """Refusal of a request by the API (RFC 9457).

    `status` is the HTTP status, `kind` the URN of the problem, `field` the path of the invalid value, `run_status` the
    status of a run that refused a transition; the last two are None where they do not apply. `tries` is the number of
    times the request was sent. With more than one, an earlier try whose response was lost may be the reason for the
    refusal. `missing` holds the paths of announced files that have not been uploaded, `open_requests` the ids of the
    open requests of a run that refused an answer.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        kind: str = "",
        field: str | None = None,
        run_status: str | None = None,
        missing: Sequence[str] = (),
        open_requests: Sequence[str] = (),
    ) -> None:
        super().__init__(f"{detail} ({field})" if field else detail)
        self.status = status
        self.detail = detail
        self.kind = kind
        self.field = field
        self.run_status = run_status
        self.missing = list(missing)
        self.open_requests = list(open_requests)
        self.tries = 1


class Unreachable(ClientError):
    """Missing response of the API. The request may have taken effect; sending it again is safe."""


class ProtocolError(ClientError):
    """Response that this API does not give."""


class RunFailed(ClientError):
    """End of a run without success: `run.status` is `failed`, `cancelled` or `waiting` (for input).

    `error` is the error of the run, `stderr` the last lines that the failed step wrote to its error output.
    """

    def __init__(self, run: Run, stderr: Sequence[str] = ()) -> None:
        reason = f": {run.error.message} ({run.error.code})" if run.error else ""
        state = {"failed": "has failed", "cancelled": "was cancelled"}.get(run.status, "waits for input")
        super().__init__(f"the run {run.run_id} {state}{reason}")
        self.run = run
        self.error: RunError | None = run.error
        self.stderr = list(stderr)


class WaitTimeout(ClientError, TimeoutError):
    """End of the time to wait for a run, which continues. `run` is the run at that time."""

    def __init__(self, run: Run, timeout_s: float) -> None:
        super().__init__(f"the run {run.run_id} has not ended after {timeout_s:g} s; it is {run.status}")
        self.run = run
