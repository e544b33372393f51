"""Stream tokens, with which a browser can follow the log of one run."""

import time
from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from edge_api.auth.stream_tokens import StreamTokens
from edge_api.http.endpoint import BODY_ERRORS, ApiEndpoint
from edge_api.http.parsing import read_optional
from edge_api.http.principal import Principal
from edge_api.http.request_models import MintStreamToken
from edge_api.http.response_models import StreamToken
from edge_api.http.responses import ok
from edge_api.runs_service import RunService
from edge_api.settings import READ_RUNS
from infra.logging import log


class StreamTokenRoutes:
    """Mint stream tokens."""

    def __init__(self, runs: RunService, tokens: StreamTokens, *, max_body_bytes: int) -> None:
        self._runs = runs
        self._tokens = tokens
        self._max_body_bytes = max_body_bytes

    def endpoints(self) -> Sequence[ApiEndpoint]:
        """Return the endpoint rows."""
        return [
            ApiEndpoint(
                "POST",
                "/agent/runs/{run_id}/stream-token",
                self.mint,
                READ_RUNS,
                operation_id="mintStreamToken",
                summary="Get a short-lived token with which a browser can read the log of this run, and nothing else.",
                success={201: StreamToken},
                errors=[*BODY_ERRORS, 404, 501],
                body=MintStreamToken,
                body_optional=True,
            ),
        ]

    async def mint(self, request: Request, principal: Principal) -> Response:
        """`POST /agent/runs/{run_id}/stream-token`."""
        wanted = await read_optional(request, MintStreamToken, self._max_body_bytes)
        # Mint only for runs of this user: the token would otherwise claim a right that it does not give.
        run = await self._runs.head(principal.user, request.path_params["run_id"])
        token = self._tokens.mint(run.user, run.id, wanted.expires_s, time.time())
        log("stream_token.minted", run_id=run.id, user=run.user, expires_ms=token.expires_ms)
        return ok(token, 201)
