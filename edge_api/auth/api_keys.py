"""Static API keys: the `Authenticate` of this release."""

import hashlib
import hmac
from collections.abc import Sequence

from starlette.requests import Request

from edge_api.http.errors import Unauthenticated
from edge_api.http.principal import Principal
from edge_api.settings import ApiKey


class ApiKeys:
    """Static API keys, stored as SHA-256 digests. Tokens are long and random, so a digest without salt is enough."""

    def __init__(self, keys: Sequence[ApiKey]) -> None:
        self._keys = [(key.sha256.encode(), Principal(key.user, frozenset(key.scopes))) for key in keys]

    async def __call__(self, request: Request) -> Principal:
        """Return the principal of the bearer token. Raises Unauthenticated."""
        digest = hashlib.sha256(_bearer(request).encode("utf-8", "surrogateescape")).hexdigest().encode()
        found: Principal | None = None
        # Compare with every key, so that the response time does not depend on the position of the matching one.
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
