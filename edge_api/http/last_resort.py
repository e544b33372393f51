"""Last resort: the response to an unexpected exception."""

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge_api.http.errors import report, respond


class LastResort:
    """Middleware that responds to an unexpected exception with a problem without internal details, and logs it once."""

    # Not an exception handler of Starlette: the one for `Exception` raises again after it has responded, and then the
    # server logs the same error a second time.

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application; respond for it if it fails before its response has started."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        has_started = False

        async def watched_send(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        except ClientDisconnect:
            # The client disconnected while its body was read: no error, and no response is possible.
            return None
        except Exception as exc:  # noqa: BLE001
            problem, headers = report(exc, scope)
            if not has_started:
                await respond(problem, headers)(scope, receive, send)
