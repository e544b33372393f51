"""Base path: what a custom domain or a proxy puts before all paths of the API."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

STAGE = "swissbrain.stage"
"""Entry of a scope: what a gateway had before the path, and has removed already."""


class BasePath:
    """Middleware that removes the base path from the path of a request that has it.

    A `Location` in the response has it, and the stage of a gateway: clients resolve it against the URL of the request.
    """

    def __init__(self, app: ASGIApp, base_path: str) -> None:
        self._app = app
        self._base_path = base_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application with the path behind the base path."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        prefix = scope.get(STAGE, "")
        # Only whole segments: with the base path `/v1`, `/v10/health` is another path.
        if self._base_path and f"{scope['path']}/".startswith(f"{self._base_path}/"):
            scope = {**scope, "path": scope["path"].removeprefix(self._base_path) or "/"}
            prefix += self._base_path

        async def send_with_prefix(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [_prefixed(name, value, prefix.encode()) for name, value in message["headers"]]
            await send(message)

        await self._app(scope, receive, send_with_prefix if prefix else send)


def _prefixed(name: bytes, value: bytes, prefix: bytes) -> tuple[bytes, bytes]:
    # A URL of the object store is complete.
    return (name, prefix + value) if name == b"location" and value.startswith(b"/") else (name, value)
