"""Tokens with which pods prove to the proxy which call they are, and which hosts it may reach: JWTs, signed by HMAC."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import jwt
import msgspec

from infra.contract.execution import Command

USER = "run"
ALGORITHM = "HS256"
ISSUER = "swissbrain"
AUDIENCE = "swissbrain:egress"
CLAIMS = ("iss", "aud", "sub", "call", "network", "exp")
LEEWAY_S = 30
"""Difference of the clocks of worker and proxy for which an expired token is still accepted."""
MAX_TOKEN_CHARS = 16_000


class BadToken(Exception):
    """Token that is missing, expired, or not signed with the key. The message never has the token."""


class EgressGrant(msgspec.Struct, frozen=True, kw_only=True):
    """Content of a token. `exp` is its end, in s since the epoch."""

    sub: str
    call: str
    network: tuple[str, ...]
    exp: int


class EgressTokens:
    """Signs and verifies tokens with one key."""

    def __init__(self, key: str) -> None:
        self._key = key

    def proxy_url(self, address: str, command: Command, expires_s: int) -> str:
        """Return the URL of the proxy at `address` (host:port) for a command: a secret, valid until `expires_s`."""
        return f"http://{USER}:{self.sign(command, expires_s)}@{address}"

    def sign(self, command: Command, expires_s: int) -> str:
        """Return a token for a command; `expires_s` in s since the epoch."""
        claims: Mapping[str, Any] = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": command.run_id,
            "call": command.call,
            "network": list(command.network),
            "exp": expires_s,
        }
        return jwt.encode(dict(claims), self._key, ALGORITHM)

    def grant(self, authorization: bytes) -> EgressGrant:
        """Return the content of the token in a header Proxy-Authorization. Raises BadToken."""
        scheme, _, credentials = authorization.partition(b" ")
        try:
            text = base64.b64decode(credentials.strip(), validate=True).decode("ascii")
        except (binascii.Error, UnicodeDecodeError):
            raise BadToken("the header Proxy-Authorization is damaged") from None
        user, _, token = text.partition(":")
        if scheme.lower() != b"basic" or user != USER or len(token) > MAX_TOKEN_CHARS:
            raise BadToken(f"the proxy needs Basic credentials of the user '{USER}' with a token")
        try:
            claims = jwt.decode(
                token,
                self._key,
                [ALGORITHM],
                {"require": [*CLAIMS], "strict_aud": True},
                audience=AUDIENCE,
                issuer=ISSUER,
                leeway=LEEWAY_S,
            )
            return msgspec.convert(claims, EgressGrant)
        except jwt.ExpiredSignatureError:
            raise BadToken("the token has expired, because its call has ended") from None
        except (jwt.InvalidTokenError, msgspec.ValidationError):
            raise BadToken("the token was not made by a worker of this proxy, or is damaged") from None
