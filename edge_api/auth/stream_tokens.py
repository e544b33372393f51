"""Stream tokens: leave to read the log of one run for some minutes, for browsers, whose EventSource sends no headers.

A token stands in a URL, where others may come to see it. So it is good for one run, for reading its log, and not long.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request

from edge_api.auth.api_keys import Principal
from edge_api.http.errors import StreamTokenElsewhere, StreamTokenExpired, StreamTokenInvalid, StreamTokensOff
from edge_api.http.response_models import StreamToken

PARAMETER = "token"
ALGORITHM = "HS256"
ISSUER = "swissbrain"
AUDIENCE = "swissbrain:stream"
CLAIMS = ("sub", "run", "aud", "iss", "iat", "exp")

_SCOPES = frozenset({"runs:read"})
_FORM = re.compile(r"[A-Za-z0-9_-]{1,100}\.[A-Za-z0-9_-]{1,800}\.[A-Za-z0-9_-]{43}")


class StreamTokens:
    """Signs with the first key and knows the signatures of all, so that a new key can go before the old one."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = tuple(keys)

    def mint(self, user: str, run_id: str, expires_s: int, now_s: float) -> StreamToken:
        """A token for the user's run, good for `expires_s` and at most a second more. Raises StreamTokensOff."""
        if not self._keys:
            raise StreamTokensOff("this API makes no stream tokens: EDGE_STREAM_TOKEN_KEY is not set")
        import jwt  # 7 ms that a cold start need not pay for

        expires = math.ceil(now_s + expires_s)
        claims = {"sub": user, "run": run_id, "aud": AUDIENCE, "iss": ISSUER, "iat": int(now_s), "exp": expires}
        token = jwt.encode(claims, self._keys[0], ALGORITHM)
        href = f"/agent/logs/{run_id}/stream?{urlencode({PARAMETER: token})}"
        return StreamToken(token=token, expires_ms=expires * 1000, href=href)

    def principal(self, tokens: Sequence[str], request: Request) -> Principal:
        """Who may read the log of the run in the path, by the tokens that came in the query.

        Raises StreamTokenInvalid, StreamTokenExpired, StreamTokenElsewhere.
        """
        if len(tokens) > 1:
            raise StreamTokenInvalid("the token is given twice")
        if "authorization" in request.headers:
            raise StreamTokenInvalid("send the header Authorization or a stream token, not both")
        claims = self._claims(tokens[0])
        if claims["run"] != request.path_params["run_id"]:
            raise StreamTokenElsewhere("the stream token is for another run")
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
                    # That of another machine may be ahead of this one's clock.
                    {"require": [*CLAIMS], "strict_aud": True, "verify_iat": False},
                    audience=AUDIENCE,
                    issuer=ISSUER,
                )
            except jwt.InvalidSignatureError:
                continue
            except jwt.ExpiredSignatureError:
                raise StreamTokenExpired("the stream token has expired; get a new one and go on with ?after=") from None
            except jwt.InvalidTokenError:
                break
        raise StreamTokenInvalid("the stream token was not made by this API, or is damaged")


def taken_from(request: Request) -> tuple[list[str], Request]:
    """The stream tokens in a request's query, and the request without them: nothing after this can show one."""
    given = request.query_params.multi_items()
    tokens = [value for name, value in given if name == PARAMETER]
    if not tokens:
        return [], request
    rest = urlencode([pair for pair in given if pair[0] != PARAMETER])
    return tokens, Request({**request.scope, "query_string": rest.encode()}, request.receive)
