"""Stream tokens: JWTs that allow reading the log of one run for some minutes.

Browsers need them, because an `EventSource` cannot send an Authorization header. A token is part of a URL, which can
show up in histories and logs of proxies, so a token is limited to one run, to its log, and to a short time.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request

from edge_api.http.errors import StreamTokenExpired, StreamTokenForAnotherRun, StreamTokenInvalid, StreamTokensOff
from edge_api.http.principal import Principal
from edge_api.http.response_models import StreamToken
from edge_api.settings import READ_RUNS

PARAMETER = "token"
ALGORITHM = "HS256"
ISSUER = "swissbrain"
AUDIENCE = "swissbrain:stream"
CLAIMS = ("sub", "run", "aud", "iss", "iat", "exp")

_SCOPES = frozenset({READ_RUNS})
_FORM = re.compile(r"[A-Za-z0-9_-]{1,100}\.[A-Za-z0-9_-]{1,800}\.[A-Za-z0-9_-]{43}")


class StreamTokens:
    """Signs tokens with the first key and verifies them with every key, so that keys can be rotated."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = tuple(keys)

    def mint(self, user: str, run_id: str, expires_s: int, now_s: float) -> StreamToken:
        """Return a token for the user's run, valid for `expires_s` to `expires_s + 1` seconds.

        Raises StreamTokensOff if no key is configured.
        """
        if not self._keys:
            raise StreamTokensOff("this API makes no stream tokens: EDGE_STREAM_TOKEN_KEY is not set")
        import jwt  # 7 ms that a cold start without stream tokens saves

        expires = math.ceil(now_s + expires_s)
        claims = {"sub": user, "run": run_id, "aud": AUDIENCE, "iss": ISSUER, "iat": int(now_s), "exp": expires}
        token = jwt.encode(claims, self._keys[0], ALGORITHM)
        href = f"/agent/logs/{run_id}/stream?{urlencode({PARAMETER: token})}"
        return StreamToken(token=token, expires_ms=expires * 1000, href=href)

    def principal(self, tokens: Sequence[str], request: Request) -> Principal:
        """Return the user of the stream token in the query, with the scope to read runs.

        Raises StreamTokenInvalid, StreamTokenExpired, and StreamTokenForAnotherRun if the path names another run.
        """
        if len(tokens) > 1:
            raise StreamTokenInvalid("the token is given twice")
        if "authorization" in request.headers:
            raise StreamTokenInvalid("send the header Authorization or a stream token, not both")
        claims = self._claims(tokens[0])
        if claims["run"] != request.path_params["run_id"]:
            raise StreamTokenForAnotherRun("the stream token is for another run")
        return Principal(str(claims["sub"]), _SCOPES)

    def _claims(self, token: str) -> Mapping[str, Any]:
        import jwt

        keys = self._keys if _FORM.fullmatch(token) else ()
        for key in keys:
            try:
                return jwt.decode(
                    token,
                    key,
                    [ALGORITHM],
                    # `iat` is not compared: the clock of the machine that signed may be ahead of this one.
                    {"require": [*CLAIMS], "strict_aud": True, "verify_iat": False},
                    audience=AUDIENCE,
                    issuer=ISSUER,
                )
            except jwt.InvalidSignatureError:
                # The token may be signed with another key of the rotation.
                continue
            except jwt.ExpiredSignatureError:
                raise StreamTokenExpired(
                    "the stream token has expired; get a new one and continue with ?after="
                ) from None
            except jwt.InvalidTokenError:
                break
        raise StreamTokenInvalid("the stream token was not made by this API, or is damaged")


def extract_tokens(request: Request) -> tuple[list[str], Request]:
    """Return the stream tokens in the query, and the request without them, so that no later code can log a token."""
    given = request.query_params.multi_items()
    tokens = [value for name, value in given if name == PARAMETER]
    if not tokens:
        return [], request
    rest = urlencode([pair for pair in given if pair[0] != PARAMETER])
    return tokens, Request({**request.scope, "query_string": rest.encode()}, request.receive)
