"""Base path: what a custom domain or a proxy puts before all paths of the API."""

from starlette.types import ASGIApp, Receive, Scope, Send


class BasePath:
    """Middleware that removes the base path from the path of a request that has it."""

    def __init__(self, app: ASGIApp, base_path: str) -> None:
        self._app = app
        self._base_path = base_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application with the path behind the base path."""
        # Only whole segments: with the base path `/v1`, `/v10/health` is another path.
        if scope["type"] == "http" and f"{scope['path']}/".startswith(f"{self._base_path}/"):
            scope = {**scope, "path": scope["path"].removeprefix(self._base_path) or "/"}
        await self._app(scope, receive, send)
