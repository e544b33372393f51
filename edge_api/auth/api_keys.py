"""Who is asking: the seam between a request and a principal, and the static API keys behind it."""

import hashlib
import hmac
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from starlette.requests import Request

from edge_api.http.errors import Forbidden, Unauthenticated
from edge_api.settings import ApiKey


@dataclass(frozen=True)
class Principal:
    """A user, and what the token in hand allows."""

    user: str
    scopes: frozenset[str]

    def require(self, scope: str) -> None:
        """Raise Forbidden without the scope."""
        if scope not in self.scopes:
            raise Forbidden(scope)


Authenticate: TypeAlias = Callable[[Request], Awaitable[Principal]]
"""Tells who is asking, or raises Unauthenticated."""


class ApiKeys:
    """Static API keys, known only by their SHA-256. Tokens are random and long, so a plain digest is enough."""

    def __init__(self, keys: Sequence[ApiKey]) -> None:
        self._keys = [(key.sha256.encode(), Principal(key.user, frozenset(key.scopes))) for key in keys]

    async def __call__(self, request: Request) -> Principal:
        """The principal of the bearer token. Looks at every key, so that the time tells nothing about them."""
        digest = hashlib.sha256(_bearer(request).encode("utf-8", "surrogateescape")).hexdigest().encode()
        found: Principal | None = None
        for known, principal in self._keys:
            if hmac.compare_digest(known, digest):
                found = principal
        if found is None:
            raise Unauthenticated("the token is not known")
        return found


def _bearer(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("send the header 'Authorization: Bearer <token>'")
    return token.strip()
