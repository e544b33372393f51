# Generated from swissbrain/_async by `python -m scripts.unasync`; change it there.
"""Client of the HTTP API."""

from typing import Self

from swissbrain._sync.files import FileMethods
from swissbrain._sync.logs import LogMethods
from swissbrain._sync.runs import RunMethods
from swissbrain._sync.schedules import ScheduleMethods
from swissbrain._sync.transport import Transport
from swissbrain._sync.webhooks import WebhookMethods
from swissbrain.access import find_access
from swissbrain.callbacks import Notify, ignore

TIMEOUT_S = 30.0
PATIENCE_S = 300.0


class Client(RunMethods, LogMethods, FileMethods, ScheduleMethods, WebhookMethods):
    """Client of the API at `base_url` with a bearer token.

    May be shared between threads and forked processes.

    Every method raises ApiError if the API refuses a request, Unreachable if it does not respond, ProtocolError if
    the response does not come from this API. Requests are retried where that may help; no request takes effect twice.
    """

    def __init__(
        self,
        base_url: str,
        token: str,
        *,
        timeout_s: float = TIMEOUT_S,
        patience_s: float = PATIENCE_S,
        notify: Notify = ignore,
    ) -> None:
        """Prepare the connections; raises ClientError for an address or a token that is malformed.

        `timeout_s` bounds each request; `patience_s` bounds how long `events` and `wait` retry while the API is
        unreachable. `notify` receives a line when it cannot be reached meanwhile, and when it can be reached again.
        """
        self._api = Transport(base_url, token, timeout_s)
        self._patience_s = patience_s
        self._notify = notify

    @classmethod
    def from_env(
        cls,
        *,
        profile: str | None = None,
        timeout_s: float = TIMEOUT_S,
        patience_s: float = PATIENCE_S,
        notify: Notify = ignore,
    ) -> Self:
        """Return a client for the API that SWISSBRAIN_API_URL and SWISSBRAIN_TOKEN name, else for the dev stack.

        The dev stack is the one started in the current folder or in the nearest above it. A `profile` takes precedence:
        the file NAME.env in `.swissbrain/` of these folders, or in `~/.config/swissbrain/`. Raises ClientError if there
        is no access.
        """
        access = find_access(profile)
        return cls(access.url, access.token, timeout_s=timeout_s, patience_s=patience_s, notify=notify)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._api.close()
