"""Principal of a request: the user who sent it, and the scopes of the token that came with it."""

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import msgspec
from starlette.requests import Request

from edge_api.http.errors import Forbidden


class Principal(msgspec.Struct, frozen=True):
    """User, and the scopes of the user's token."""

    user: str
    scopes: frozenset[str]

    def allows(self, scope: str) -> bool:
        """Return whether the token has the scope."""
        return scope in self.scopes

    def require(self, scope: str) -> None:
        """Raise Forbidden unless the token has the scope."""
        if not self.allows(scope):
            raise Forbidden(scope)


ANONYMOUS = Principal("", frozenset())
"""Principal of requests to public endpoints, which are not authenticated."""

Authenticate: TypeAlias = Callable[[Request], Awaitable[Principal]]
"""Function that returns the principal of a request, or raises Unauthenticated."""
