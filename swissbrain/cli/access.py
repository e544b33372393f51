"""API and token of a command: of the option `--profile`, or as the client finds them."""

import hashlib
import sys
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from swissbrain.access import Access, find_access

if TYPE_CHECKING:
    from swissbrain import Client

FINGERPRINT_CHARS = 12

profile: ContextVar[str | None] = ContextVar("profile", default=None)
"""Name given with the option `--profile`."""
used: ContextVar[Access | None] = ContextVar("used", default=None)
"""Access of the current command, for errors to name."""


def connect(notify: Callable[[str], None], **options: float) -> "Client":
    """Return a client with the `options` of Client. Raises ClientError."""
    found = find_access(profile.get())
    used.set(found)
    return _client_class()(found.url, found.token, notify=notify, **options)


def _client_class() -> type["Client"]:
    """Import the client, here because its HTTP library takes longer than all else that a command imports."""
    # httpx also imports its own command line if the packages of that are installed. None says that it cannot be
    # imported, which httpx allows for, and saves a quarter of the time until a command does its work.
    unneeded = "httpx._main"
    modules: dict[str, Any] = sys.modules
    if "httpx" not in modules:
        modules[unneeded] = None
    from swissbrain import Client

    if unneeded in modules and modules[unneeded] is None:
        del modules[unneeded]
    return Client


def fingerprint(token: str) -> str:
    """Return the first digits of a token's SHA-256, which identify the token without revealing it."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()[:FINGERPRINT_CHARS]
