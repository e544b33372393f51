"""Tokens with which a browser can follow one run's log."""

import time

from starlette.requests import Request
from starlette.responses import Response

from edge_api.auth.api_keys import Principal
from edge_api.auth.stream_tokens import StreamTokens
from edge_api.http.parsing import read_optional
from edge_api.http.request_models import MintStreamToken
from edge_api.http.responses import ok
from edge_api.runs_service import RunService
from infra.logging import log


class StreamTokenRoutes:
    """Give out stream tokens."""

    def __init__(self, runs: RunService, tokens: StreamTokens, *, max_body_bytes: int) -> None:
        self._runs = runs
        self._tokens = tokens
        self._max_body_bytes = max_body_bytes

    async def mint(self, request: Request, principal: Principal) -> Response:
        """`POST /agent/runs/{run_id}/stream-token`."""
        wanted = await read_optional(request, MintStreamToken, self._max_body_bytes)
        run = await self._runs.head(principal.user, request.path_params["run_id"])
        token = self._tokens.mint(run.user, run.id, wanted.expires_s, time.time())
        log("stream_token.minted", run_id=run.id, user=run.user, expires_ms=token.expires_ms)
        return ok(token, 201)
