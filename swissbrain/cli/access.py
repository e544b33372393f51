"""API and token of a command: of the option `--profile`, or as the client finds them."""

import hashlib
from collections.abc import Callable
from contextvars import ContextVar

from swissbrain import Client
from swissbrain.access import Access, find_access

FINGERPRINT_CHARS = 12

profile: ContextVar[str | None] = ContextVar("profile", default=None)
"""Name given with the option `--profile`."""
used: ContextVar[Access | None] = ContextVar("used", default=None)
"""Access of the current command, for errors to name."""


def connect(notify: Callable[[str], None], **options: float) -> Client:
    """Return a client with the `options` of Client. Raises ClientError."""
    found = find_access(profile.get())
    used.set(found)
    return Client(found.url, found.token, notify=notify, **options)


def fingerprint(token: str) -> str:
    """Return the first digits of a token's SHA-256, which identify the token without revealing it."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()[:FINGERPRINT_CHARS]
