"""Client of the HTTP API."""

from typing import Self

from swissbrain._async.files import AsyncFileMethods
from swissbrain._async.logs import AsyncLogMethods
from swissbrain._async.runs import AsyncRunMethods
from swissbrain._async.schedules import AsyncScheduleMethods
from swissbrain._async.transport import AsyncTransport
from swissbrain._async.webhooks import AsyncWebhookMethods
from swissbrain.access import find_access
from swissbrain.callbacks import Notify, ignore

TIMEOUT_S = 30.0
PATIENCE_S = 300.0


class AsyncClient(AsyncRunMethods, AsyncLogMethods, AsyncFileMethods, AsyncScheduleMethods, AsyncWebhookMethods):
    """Client of the API at `base_url` with a bearer token.

    May be shared between tasks, event loops and forked processes.

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
        self._api = AsyncTransport(base_url, token, timeout_s)
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

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()
